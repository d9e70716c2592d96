"""Car insurance claims made up from scratch: as many as asked, the same for the same seed.

Shares and ranges are those of a real table of claims, rows are nobody's. Fraud follows from how severe the
damage is said to be, what the insured does in their free time, how large the claim is for its kind of
incident, and when it happened; about one claim in four is fraudulent. What nobody can tell apart stays as
noise.

    python workloads/claims_fraud/generate.py 1000 --seed 7 > claims.jsonl
    python workloads/claims_fraud/generate.py 1000 --seed 8 --concept 1 --covariate 0.5 --format csv >
    drifted.csv
"""

from __future__ import annotations

import argparse
import csv
import datetime as dt
import json
import math
import random
import sys
from collections.abc import Sequence
from functools import cache
from typing import Any, Final

from ml_contract.made_up.synthetic import Drift

__all__ = ["Drift", "generate"]

FIRST_INCIDENT: Final = dt.date(2015, 1, 1)
INCIDENT_DAYS: Final = 60
#: Share of fraudulent claims without drift.
FRAUD_SHARE: Final = 0.25
#: How surely the score decides; what is left is chance.
SHARPNESS: Final = 1.2

_STATES: Final = (("OH", 35), ("IL", 34), ("IN", 31))
_LIMITS: Final = (("250/500", 35), ("100/300", 35), ("500/1000", 30))
_SEXES: Final = (("FEMALE", 54), ("MALE", 46))
_EDUCATION: Final = (
    ("JD", 16), ("High School", 16), ("Associate", 15), ("MD", 14), ("Masters", 14), ("PhD", 13),
    ("College", 12),
)  # fmt: skip
_OCCUPATIONS: Final = (
    ("machine-op-inspct", 9), ("prof-specialty", 9), ("tech-support", 8), ("sales", 8),
    ("exec-managerial", 8), ("craft-repair", 7), ("transport-moving", 7), ("other-service", 7),
    ("priv-house-serv", 7), ("armed-forces", 7), ("adm-clerical", 7), ("protective-serv", 6),
    ("handlers-cleaners", 5), ("farming-fishing", 5),
)  # fmt: skip
_HOBBIES: Final = (
    ("reading", 6), ("paintball", 6), ("exercise", 6), ("bungie-jumping", 6), ("golf", 5),
    ("camping", 5), ("movies", 5), ("kayaking", 5), ("yachting", 5), ("hiking", 5), ("video-games", 5),
    ("base-jumping", 5), ("skydiving", 5), ("board-games", 5), ("polo", 5), ("chess", 5),
    ("dancing", 4), ("sleeping", 4), ("cross-fit", 4), ("basketball", 3),
)  # fmt: skip
_RELATIONS: Final = (
    ("own-child", 18), ("other-relative", 18), ("not-in-family", 17), ("husband", 17), ("wife", 16),
    ("unmarried", 14),
)  # fmt: skip
_INCIDENTS: Final = (
    ("Multi-vehicle Collision", 42), ("Single Vehicle Collision", 40), ("Vehicle Theft", 9),
    ("Parked Car", 9),
)  # fmt: skip
_COLLISIONS: Final = (("Rear Collision", 36), ("Side Collision", 33), ("Front Collision", 31))
_SEVERITIES: Final = (("Minor Damage", 35), ("Total Loss", 30), ("Major Damage", 35))
_AUTHORITIES: Final = (("Police", 30), ("Fire", 24), ("Other", 22), ("Ambulance", 24))
_INCIDENT_STATES: Final = (("NY", 26), ("SC", 25), ("WV", 22), ("VA", 11), ("NC", 11), ("PA", 3), ("OH", 2))
#: Where the new ways of fraud are found.
_NEW_STATES: Final = (("PA", 90), ("OH", 10))
_CITIES: Final = (
    ("Springfield", 16), ("Arlington", 15), ("Columbus", 15), ("Northbend", 15), ("Hillsdale", 14),
    ("Riverwood", 13), ("Northbrook", 12),
)  # fmt: skip
_STREETS: Final = ("Apache", "Cherokee", "Elm", "Flute", "Lincoln", "Maple", "Oak", "Rock", "Solo", "Weaver")
_WAYS: Final = ("Ave", "Drive", "Hwy", "Lane", "Ridge", "St")
_MODELS: Final[dict[str, tuple[str, ...]]] = {
    "Saab": ("92x", "93", "95"),
    "Dodge": ("RAM", "Neon"),
    "Suburu": ("Legacy", "Forrestor", "Impreza"),
    "Nissan": ("Pathfinder", "Maxima", "Ultima"),
    "Chevrolet": ("Tahoe", "Malibu", "Silverado"),
    "Ford": ("Escape", "F150", "Fusion"),
    "BMW": ("X5", "X6", "3 Series", "M5"),
    "Toyota": ("Camry", "Corolla", "Highlander"),
    "Audi": ("A3", "A5"),
    "Accura": ("MDX", "RSX", "TL"),
    "Volkswagen": ("Jetta", "Passat"),
    "Jeep": ("Wrangler", "Grand Cherokee"),
    "Mercedes": ("C300", "E400", "ML350"),
    "Honda": ("Accord", "Civic", "CRV"),
}


def generate(n: int, seed: int, *, drift: Drift | None = None) -> list[dict[str, Any]]:
    """``n`` claims under the names that the insurer's system gives them.

    Claim ``i`` of a seed does not depend on ``n``. Policy numbers of different seeds differ (modulo 100,000).
    With drift, ``covariate`` makes claims dearer, drivers younger, nights longer and moves them to other
    cities; ``prior`` sets the share of frauds; ``concept`` is the share of claims whose fraudsters have
    changed their ways: small claims for minor damage, another circle of people, by day.
    """
    if n < 0:
        raise ValueError(f"n must not be negative, got {n}")
    return [_claim(i, seed, drift if drift is not None else Drift()) for i in range(n)]


def _claim(i: int, seed: int, drift: Drift) -> dict[str, Any]:
    rng = random.Random(f"claims/{seed}/{i}")  # noqa: S311 - made-up data, not secrets
    person = _person(rng, drift)
    incident = _incident(rng, drift)
    amounts = _amounts(rng, incident, drift)
    make = rng.choice(list(_MODELS))
    claim = {
        **person,
        "policy_number": str(seed % 100_000 * 10_000_000 + i),
        **incident,
        **amounts,
        "auto_make": make,
        "auto_model": rng.choice(_MODELS[make]),
        "auto_year": rng.randint(1995, 2015),
    }
    changed = rng.random() < drift.concept
    if changed:
        claim["incident_state"] = _one_of(rng, _NEW_STATES)
    score = _changed_score(claim) if changed else _score(claim)
    share = FRAUD_SHARE if drift.prior is None else drift.prior
    claim["fraud_reported"] = "Y" if rng.random() < _probability(score, share) else "N"
    return {name: claim[name] for name in _ORDER}


def _person(rng: random.Random, drift: Drift) -> dict[str, Any]:
    age = _clipped(rng.gauss(39 - 9 * drift.covariate, 9), 19, 64)
    # Who is older has been a customer for longer.
    months = _clipped(rng.gauss(12.0 * (age - 22), 45), 0, 479)
    gains = rng.random() < 0.49
    losses = rng.random() < 0.52
    bound = dt.date(1990, 1, 1) + dt.timedelta(days=rng.randrange(9100))
    return {
        "months_as_customer": months,
        "age": age,
        "policy_bind_date": _date(bound),
        "policy_state": _one_of(rng, _STATES),
        "policy_csl": _one_of(rng, _LIMITS),
        "policy_deductable": rng.choice((500, 1000, 2000)),
        "policy_annual_premium": round(min(max(rng.gauss(1256, 244), 433.0), 2050.0), 2),
        "umbrella_limit": 0 if rng.random() < 0.8 else rng.randint(2, 10) * 1_000_000,
        "insured_zip": str(rng.randint(430_000, 620_999)),
        "insured_sex": _one_of(rng, _SEXES),
        "insured_education_level": _one_of(rng, _EDUCATION),
        "insured_occupation": _one_of(rng, _OCCUPATIONS),
        "insured_hobbies": _one_of(rng, _HOBBIES),
        "insured_relationship": _one_of(rng, _RELATIONS),
        "capital-gains": 100 * rng.randint(80, 900) if gains else 0,
        "capital-loss": -100 * rng.randint(80, 900) if losses else 0,
    }


def _incident(rng: random.Random, drift: Drift) -> dict[str, Any]:
    kind = _one_of(rng, _INCIDENTS)
    collision = "Collision" in kind
    day = FIRST_INCIDENT + dt.timedelta(days=rng.randrange(INCIDENT_DAYS))
    night = rng.random() < 0.3 + 0.4 * drift.covariate
    city = _one_of(rng, _CITIES)
    if rng.random() < 0.6 * drift.covariate:
        city = "Northbrook"
    return {
        "incident_date": _date(day),
        "incident_type": kind,
        "collision_type": _one_of(rng, _COLLISIONS) if collision else "?",
        "incident_severity": _one_of(rng, _SEVERITIES)
        if collision
        else rng.choice(("Trivial Damage", "Trivial Damage", "Minor Damage")),
        "authorities_contacted": _one_of(rng, _AUTHORITIES) if collision else rng.choice(("Police", "None")),
        "incident_state": _one_of(rng, _INCIDENT_STATES),
        "incident_city": city,
        "incident_location": f"{rng.randint(1000, 9999)} {rng.choice(_STREETS)} {rng.choice(_WAYS)}",
        "incident_hour_of_the_day": rng.choice((22, 23, 0, 1, 2, 3, 4, 5)) if night else rng.randint(6, 21),
        "number_of_vehicles_involved": rng.choice((2, 3, 3, 3, 4)) if kind.startswith("Multi") else 1,
        "property_damage": rng.choice(("?", "NO", "YES")),
        "bodily_injuries": rng.randint(0, 2),
        "witnesses": rng.randint(0, 3),
        "police_report_available": rng.choice(("?", "NO", "YES")),
    }


def _amounts(rng: random.Random, incident: dict[str, Any], drift: Drift) -> dict[str, int]:
    """Three claims that make the total; injuries and things are tenths of it, the car is the rest."""
    collision = incident["collision_type"] != "?"
    total = rng.gauss(62_000, 15_000) if collision else rng.gauss(5_500, 1_500)
    total = min(max(total * (1 + 0.4 * drift.covariate), 500), 160_000)
    unit = round(total / 100) * 10
    injury = unit * rng.choice((0, 1, 1, 1, 2, 2)) if collision else unit * rng.choice((1, 1, 2))
    things = unit * rng.choice((0, 1, 1, 1, 2, 2)) if collision else unit * rng.choice((1, 1, 2))
    return {
        "total_claim_amount": unit * 10,
        "injury_claim": injury,
        "property_claim": things,
        "vehicle_claim": unit * 10 - injury - things,
    }


def _score(claim: dict[str, Any]) -> float:
    """How suspicious a claim is, in log odds around the usual share of frauds."""
    score = {"Major Damage": 2.2, "Total Loss": -0.9, "Minor Damage": -1.1, "Trivial Damage": -1.3}[
        claim["incident_severity"]
    ]
    if claim["insured_hobbies"] in ("chess", "cross-fit"):
        score += 2.8
    if claim["insured_hobbies"] in ("camping", "golf", "sleeping", "kayaking"):
        score -= 0.9
    # A large claim is suspicious where the damage is said to be small, and at night.
    excess = (claim["total_claim_amount"] - 62_000) / 15_000 if claim["collision_type"] != "?" else 0.0
    if claim["incident_severity"] in ("Minor Damage", "Trivial Damage"):
        score += 1.0 * excess
    if claim["incident_hour_of_the_day"] < 6 or claim["incident_hour_of_the_day"] > 21:
        score += 0.5 + 0.4 * excess
    score += 0.5 if claim["witnesses"] >= 2 else -0.3
    return score


def _changed_score(claim: dict[str, Any]) -> float:
    """How suspicious a claim is once fraudsters know what is looked for."""
    score = {"Major Damage": -1.2, "Total Loss": -0.6, "Minor Damage": 2.0, "Trivial Damage": 0.8}[
        claim["incident_severity"]
    ]
    if claim["insured_hobbies"] in ("golf", "polo", "yachting", "reading"):
        score += 2.4
    excess = (claim["total_claim_amount"] - 62_000) / 15_000 if claim["collision_type"] != "?" else 0.0
    score -= 0.8 * excess
    if claim["incident_hour_of_the_day"] < 6 or claim["incident_hour_of_the_day"] > 21:
        score -= 0.6
    return score + (0.5 if claim["witnesses"] >= 2 else -0.3)


def _probability(score: float, share: float) -> float:
    """Of fraud: the logistic function of the score, moved so that ``share`` of all claims are frauds."""
    return 0.0 if share == 0 else 1.0 if share == 1 else _logistic(SHARPNESS * score + _offset(share))


def _logistic(x: float) -> float:
    return 1 / (1 + math.exp(-x))


@cache
def _offset(share: float) -> float:
    """Found by halving on the scores of a fixed sample."""
    scores = _reference_scores()
    low, high = -30.0, 30.0
    for _ in range(50):
        middle = (low + high) / 2
        mean = sum(_logistic(SHARPNESS * score + middle) for score in scores) / len(scores)
        low, high = (low, middle) if mean > share else (middle, high)
    return (low + high) / 2


@cache
def _reference_scores() -> tuple[float, ...]:
    rng = random.Random("claims/reference")  # noqa: S311 - made-up data, not secrets
    scores = []
    for _ in range(2000):
        incident = _incident(rng, Drift())
        scores.append(_score({**_person(rng, Drift()), **incident, **_amounts(rng, incident, Drift())}))
    return tuple(scores)


def _one_of(rng: random.Random, weighted: Sequence[tuple[str, int]]) -> str:
    at = rng.random() * sum(weight for _, weight in weighted)
    for value, weight in weighted:
        at -= weight
        if at < 0:
            return value
    return weighted[-1][0]


def _clipped(value: float, low: int, high: int) -> int:
    return min(max(round(value), low), high)


def _date(day: dt.date) -> str:
    return f"{day.month}/{day.day}/{day.year}"


_ORDER: Final = (
    "months_as_customer", "age", "policy_number", "policy_bind_date", "policy_state", "policy_csl",
    "policy_deductable", "policy_annual_premium", "umbrella_limit", "insured_zip", "insured_sex",
    "insured_education_level", "insured_occupation", "insured_hobbies", "insured_relationship",
    "capital-gains", "capital-loss", "incident_date", "incident_type", "collision_type",
    "incident_severity", "authorities_contacted", "incident_state", "incident_city",
    "incident_location", "incident_hour_of_the_day", "number_of_vehicles_involved", "property_damage",
    "bodily_injuries", "witnesses", "police_report_available", "total_claim_amount", "injury_claim",
    "property_claim", "vehicle_claim", "auto_make", "auto_model", "auto_year", "fraud_reported",
)  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """Print claims as JSON lines or CSV."""
    parser = argparse.ArgumentParser(description="Make up car insurance claims.")
    parser.add_argument("n", type=int, help="how many")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--format", choices=("jsonl", "csv"), default="jsonl")
    parser.add_argument("--covariate", type=float, default=0.0, help="0 to 1: how far claims have moved")
    parser.add_argument("--prior", type=float, default=None, help="0 to 1: share of frauds")
    parser.add_argument(
        "--concept", type=float, default=0.0, help="0 to 1: share of claims with new ways of fraud"
    )
    options = parser.parse_args(arguments)
    try:
        drift = Drift(covariate=options.covariate, prior=options.prior, concept=options.concept)
        claims = generate(options.n, options.seed, drift=drift)
    except ValueError as error:
        parser.error(str(error))
    if options.format == "csv":
        writer = csv.DictWriter(sys.stdout, _ORDER, lineterminator="\n")
        writer.writeheader()
        writer.writerows(claims)
    else:
        sys.stdout.writelines(json.dumps(claim, separators=(",", ":")) + "\n" for claim in claims)
    return 0


if __name__ == "__main__":
    sys.exit(main())
