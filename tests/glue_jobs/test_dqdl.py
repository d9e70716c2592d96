"""Reading rulesets."""

from __future__ import annotations

import pytest
from ml_contract.quality.dqdl import KEYWORDS, Composite, Condition, DqdlError, Rule, parse


def only(ruleset: str) -> Rule:
    (rule,) = parse(f"Rules = [ {ruleset} ]")
    assert isinstance(rule, Rule)
    return rule


def test_should_read_a_rule_with_a_filter_and_a_threshold() -> None:
    rule = only('ColumnValues "age" >= 16 where "age is not null" with threshold > 0.9')
    assert rule.parameters == ("age",)
    assert rule.condition == Condition(">=", (16.0,))
    assert rule.where == "age is not null"
    assert rule.threshold == Condition(">", (0.9,))


def test_should_read_lists_keywords_and_negations() -> None:
    assert only('ColumnValues "s" in ["a", NULL]').condition == Condition("in", ("a", KEYWORDS["NULL"]))
    assert only('ColumnValues "s" not in [1, -2.5]').condition == Condition("not in", (1.0, -2.5))
    assert only("RowCount between 1 and 10").condition == Condition("between", (1.0, 10.0))


def test_should_keep_the_backslashes_of_a_regular_expression() -> None:
    assert only(r'ColumnValues "s" matches "\d{2}\"x"').condition == Condition("matches", (r'\d{2}"x',))


def test_should_read_nested_composites() -> None:
    (rule,) = parse('Rules = [ (RowCount > 0) or ((IsComplete "a") and (IsUnique "a")) ]')
    assert isinstance(rule, Composite)
    assert rule.operator == "or"
    inner = rule.parts[1]
    assert isinstance(inner, Composite)
    assert inner.operator == "and"


def test_should_name_each_rule_by_its_own_text() -> None:
    rules = parse('Rules = [\n  IsComplete "a",\n  RowCount > 0\n]')
    assert [rule.text for rule in rules] == ['IsComplete "a"', "RowCount > 0"]


@pytest.mark.parametrize(
    ("ruleset", "message"),
    [
        ('Rules = [ Entropy "a" > 1 ]', "rule type 'Entropy' is not known here"),
        ("Rules = [ ]", "rule type ']' is not known here"),
        ('Rules = [ IsComplete "a" > 1 ]', "IsComplete takes no condition"),
        ('Rules = [ ColumnValues "a" ]', "ColumnValues takes a condition"),
        ('Rules = [ ColumnValues "a" > now() ]', "operand 'now' is not known here"),
        ("Rules = [ RowCount > 1 with threshold > 0.5 ]", "RowCount takes no threshold"),
        ('Rules = [ IsComplete "a" ] Analyzers = [ RowCount ]', "only Rules are evaluated here"),
        ('Rules = [ IsComplete "a"', "ends too early"),
        ("Rules = [ (RowCount > 0) and (RowCount > 1) or (RowCount > 2) ]", "and and or stand in one rule"),
        ("Rules = [ RowCount ~ 1 ]", "cannot read the ruleset from here"),
    ],
)
def test_should_refuse_what_it_does_not_know(ruleset: str, message: str) -> None:
    with pytest.raises(DqdlError, match=message.replace("(", r"\(").replace("[", r"\[")):
        parse(ruleset)
