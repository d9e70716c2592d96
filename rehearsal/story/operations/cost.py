"""Cells of cost: known before the deploy, and what nobody uses found, stopped and woken up again."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rehearsal.story.mailbox import mailbox
from rehearsal.story.operations.cells import Cell
from rehearsal.story.telling import Evidence, StoryError, require, wait_until
from rehearsal.story.traffic import ask, questions

if TYPE_CHECKING:
    from rehearsal.story.tale import Tale

__all__ = ["CELLS", "ORDER", "program", "stage_name"]

#: Its endpoint goes and comes back: what others measure on it comes before.
ORDER = 80
CHAPTER = "Cost"
#: Longer than the environment of the play waits before it stops what nobody uses.
IDLE_HOURS = 721


def stage_name(tale: Tale) -> str:
    """The environment's name, as a user types it."""
    return tale.stage[:1].lower() + tale.stage[1:]


def program(tale: Tale, *arguments: str, environment: dict[str, str] | None = None) -> str:
    """Run one of the app's own programs in the app's folder; return what it printed.

    Raises:
        StoryError: it failed; the text is what it said last.
    """
    # With ``-m`` the folder it runs in is looked at first: the app's own packages.
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=tale.app,
        env=dict(os.environ) if environment is None else environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        lines = [line for line in (done.stderr + done.stdout).splitlines() if line.strip()]
        raise StoryError(f"{' '.join(arguments[:3])} ended with {done.returncode}: {' | '.join(lines[-3:])}")
    return done.stdout


def _forecast(tale: Tale, evidence: Evidence) -> None:
    page = tale.out / "cost.html"
    asked = ("-m", "cost", "--environment", stage_name(tale), "--assembly", str(tale.assembly))
    said: dict[str, Any] = json.loads(program(tale, *asked, "--json", "--html", str(page)))
    total = said["total"]
    evidence |= {
        "usd_a_month": total,
        "prices_of": said["prices"],
        "share_of_prices_seen": said["share_of_prices_seen"],
        "dearest_services": dict(list(said["by_service"].items())[:5]),
        "loads": said["loads"],
        "advice": said["advice"],
        "page": page.name,
    }
    require(not said["not_priced"], f"not priced: {', '.join(said['not_priced'])}")
    require(0 < total["rest"] < total["idle"] <= total["load"], f"the sums do not rise: {total}")
    text = page.read_text(encoding="utf-8")
    require("<svg" in text and "aws.amazon.com" in text, "the page has no plot or no sources")
    ten = program(tale, *asked, "--json", "--load", "records=100000,predictions=50000")
    more = json.loads(ten)["total"]
    evidence["with_a_hundred_times_the_records"] = more["load"]
    require(more["load"] > total["load"] and more["rest"] == total["rest"], "a greater load costs no more")
    same = json.loads(program(tale, *asked, "--json", "--against", str(tale.assembly)))
    require(same["usd_per_month"] == 0 and not same["changes"], f"a change that is none costs: {same}")


def _budget(tale: Tale, evidence: Evidence) -> None:
    client = tale.cloud.client("budgets")
    account = tale.cloud.server.account
    budgets = client.describe_budgets(AccountId=account)["Budgets"]
    require(len(budgets) == 1, f"the environment has one budget, got {len(budgets)}")
    name = budgets[0]["BudgetName"]
    actions = client.describe_budget_actions_for_budget(AccountId=account, BudgetName=name)["Actions"]
    require(len(actions) == 1, f"the budget has one action, got {len(actions)}")
    action = actions[0]
    evidence |= {
        "budget": name,
        "limit": budgets[0]["BudgetLimit"],
        "filter": budgets[0].get("CostFilters"),
        "action": action["ActionType"],
        "approval": action["ApprovalModel"],
        "roles": action["Definition"]["IamActionDefinition"]["Roles"],
    }
    policy = action["Definition"]["IamActionDefinition"]["PolicyArn"]
    iam = tale.cloud.client("iam")
    version = iam.get_policy(PolicyArn=policy)["Policy"]["DefaultVersionId"]
    document = iam.get_policy_version(PolicyArn=policy, VersionId=version)["PolicyVersion"]["Document"]
    statements = document["Statement"] if isinstance(document, dict) else json.loads(document)["Statement"]
    evidence["denies"] = statements[0]["Action"]
    require(all(s["Effect"] == "Deny" for s in statements), "the policy of a spent budget allows something")
    require(action["ApprovalModel"] == "MANUAL", "nobody is asked before roles are denied")


def _serving(tale: Tale) -> str:
    return tale.cdk.stack_name(f"{tale.stage}/{tale.workload.id}Serving")


def _operations(tale: Tale) -> str:
    return tale.cdk.stack_name(f"{tale.stage}/{tale.workload.id}Operations")


def _endpoints(tale: Tale) -> list[str]:
    found = tale.cloud.client("sagemaker").list_endpoints()["Endpoints"]
    return [e["EndpointName"] for e in found if e["EndpointStatus"] != "Deleting"]


def _settled(tale: Tale, stacks: Sequence[str]) -> list[str]:
    """Wait until nothing changes the stacks any more; return their statuses."""
    client = tale.cloud.client("cloudformation")

    def found() -> list[str] | None:
        statuses = [client.describe_stacks(StackName=s)["Stacks"][0]["StackStatus"] for s in stacks]
        return None if any(s.endswith("_IN_PROGRESS") for s in statuses) else statuses

    done: list[str] = wait_until("the stacks at rest", found, seconds=300, every=0.5)
    return done


def _state(tale: Tale) -> str:
    name = tale.outputs("Operations")["RunStateParameter"]
    value: str = tale.cloud.client("ssm").get_parameter(Name=name)["Parameter"]["Value"]
    return value


def _look(tale: Tale) -> dict[str, Any]:
    """Let the hourly look happen once, at the clock's time."""
    seen = len(_looks(tale))
    tale.cloud.advance(hours=1)
    tale.cloud.idle()
    looks: list[dict[str, Any]] = wait_until(
        "an hourly look", lambda: found if len(found := _looks(tale)) > seen else None, seconds=60, every=0.5
    )
    return looks[-1]


def _looks(tale: Tale) -> list[dict[str, Any]]:
    """What the function has logged, the oldest first."""
    name = tale.outputs("Operations")["IdleFunctionName"]
    group = tale.cloud.client("lambda").get_function_configuration(FunctionName=name)["LoggingConfig"][
        "LogGroup"
    ]
    events = tale.cloud.client("logs").filter_log_events(logGroupName=group)["events"]
    lines = [e["message"] for e in events if '"level": "INFO"' in e["message"]]
    return [json.loads(line) for line in lines]


def _used(tale: Tale, evidence: Evidence) -> None:
    """An endpoint that was asked within the hours is left alone."""
    tale.cloud.pass_over(hours=IDLE_HOURS)
    evidence["requests"] = len(ask(tale, questions(tale, tale.inputs.live[:5])))
    look = _look(tale)
    evidence |= {"look": look["message"], "why": look["why"], "state": _state(tale)}
    require(
        look["message"] == "left" and "requests" in look["why"],
        f"an endpoint in use was {look['message']}: {look['why']}",
    )
    require(_state(tale) == "running" and _endpoints(tale), "the endpoint in use is gone")


def _stopped(tale: Tale, evidence: Evidence) -> None:
    stacks = [_serving(tale), _operations(tale)]
    before = _endpoints(tale)
    require(before, "there is no endpoint that could be idle")
    evidence["schedules_passed_over"] = tale.cloud.pass_over(hours=IDLE_HOURS)
    with mailbox(tale) as box:
        look = _look(tale)
        if look["message"] == "stopped":
            notice = box.told("serving.stopped")
            evidence["notice"] = {"title": notice["title"], "numbers": notice["numbers"]}
    evidence |= {"look": look["message"], "why": look["why"], "stacks": look["stacks"]}
    require(
        look["message"] == "stopped", f"an endpoint that nobody asks was {look['message']}: {look['why']}"
    )
    evidence["statuses"] = _settled(tale, stacks)
    after = _endpoints(tale)
    evidence |= {"endpoints_before": before, "endpoints_after": after, "state": _state(tale)}
    require(not after, f"still there: {', '.join(after)}")
    schedule = tale.outputs("Operations")["MonitorScheduleName"]
    monitor = tale.cloud.client("scheduler").get_schedule(Name=schedule.rsplit("|", 1)[-1].rsplit("/", 1)[-1])
    evidence["monitor"] = monitor["State"]
    require(monitor["State"] == "DISABLED", "the monitor goes on judging an endpoint that is stopped")
    # Who deploys now changes nothing: what is stopped stays stopped, and CloudFormation still owns it.
    tale.cdk.deploy([f"{tale.stage}/{tale.workload.id}Serving"], exclusively=True)
    evidence["endpoints_after_a_deploy"] = _endpoints(tale)
    require(not _endpoints(tale), "a deploy woke up what was stopped")
    look = _look(tale)
    evidence["next_look"] = look["why"]
    require(look["message"] == "left", f"the next look {look['message']} what is stopped")


def _started(tale: Tale, evidence: Evidence) -> None:
    environment = tale.cdk.environment() | {"PYTHONPATH": str(tale.app)}
    said = program(
        tale,
        str(Path("tools") / "start.py"),
        stage_name(tale),
        tale.workload.name,
        environment=environment,
    )
    evidence["program"] = json.loads(said)
    evidence["statuses"] = _settled(tale, [_serving(tale), _operations(tale)])
    evidence["endpoints"] = _endpoints(tale)
    require(evidence["endpoints"], "the endpoint did not come back")
    name = evidence["endpoints"][0]
    sagemaker = tale.cloud.client("sagemaker")
    wait_until(
        "the endpoint in service",
        lambda: sagemaker.describe_endpoint(EndpointName=name)["EndpointStatus"] == "InService",
        seconds=180,
    )
    answers = ask(tale, questions(tale, tale.inputs.live[:5]))
    failed = [a.error for a in answers if a.error is not None]
    evidence |= {"requests": len(answers), "failed": len(failed), "state": _state(tale)}
    require(not failed, f"the endpoint that was woken up does not answer: {failed[:1]}")


CELLS = (
    Cell(
        id="cost.forecast",
        title="The bill is forecast from the deployed templates: at rest, idle, at the stated load",
        chapter=CHAPTER,
        run=_forecast,
        ground="synthesised",
        capabilities=("cost.forecast",),
    ),
    Cell(
        id="cost.budget",
        title="A spent budget asks, and then denies roles to start jobs",
        chapter=CHAPTER,
        run=_budget,
        ground="deployed",
        capabilities=("cost.budgets",),
        why_recorded="the budget and its action are there and can be read; nobody is billed here",
    ),
    Cell(
        id="cost.idle.used",
        title="An endpoint that is asked is left alone",
        chapter=CHAPTER,
        run=_used,
        capabilities=("cost.idle",),
    ),
    Cell(
        id="cost.idle.stopped",
        title="An endpoint that nobody asks is stopped by an update of its stack, and stays stopped",
        chapter=CHAPTER,
        run=_stopped,
        capabilities=("cost.idle",),
    ),
    Cell(
        id="cost.idle.started",
        title="It is woken up and answers",
        chapter=CHAPTER,
        run=_started,
        capabilities=("cost.idle",),
    ),
)
