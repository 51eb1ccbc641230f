"""Nodes are replaced one at a time, in whatever state they are found."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provisioning.rolling import Done, Machine, Node, Replace, Wait, next_step

UP = Machine("i-1", "InService", True, "1")


def node(name: str, *machines: Machine, wanted: str = "2") -> Node:
    return Node(name, f"group-of-{name}", wanted, machines)


def test_the_first_outdated_node_is_replaced_and_then_the_next():
    current = replace(UP, version="2")
    assert next_step([node("b", UP), node("a", UP)]) == Replace(node("a", UP))
    assert next_step([node("b", UP), node("a", current)]) == Replace(node("b", UP))
    assert next_step([node("b", current), node("a", current)]) == Done()
    assert next_step([]) == Done()


@pytest.mark.parametrize(
    "machines, reason",
    [
        ((replace(UP, state="Terminating:Wait"),), "b ships what is in its spool (i-1, Terminating:Wait)"),
        ((replace(UP, state="Pending", version="2"),), "b starts (i-1, Pending)"),
        ((), "b has no machine: its group has to start one"),
        ((replace(UP, version="2", is_healthy=False),), "b is current and unhealthy"),
    ],
)
def test_while_one_is_away_no_other_is_replaced(machines, reason):
    assert next_step([node("a", UP), node("b", *machines), node("c", UP)]) == Wait(reason)


def test_a_sick_node_that_is_outdated_goes_first_unless_there_are_two():
    sick = replace(UP, is_healthy=False)
    assert next_step([node("a", UP), node("b", sick)]) == Replace(node("b", sick))
    assert next_step([node("a", sick), node("b", sick)]) == Wait(
        "a and b are unhealthy: nothing is replaced before at most one is"
    )


MACHINES = st.builds(
    Machine,
    instance=st.just("i-1"),
    state=st.sampled_from(["InService", "Pending", "Terminating:Wait"]),
    is_healthy=st.booleans(),
    version=st.sampled_from(["1", "2"]),
)


@given(st.lists(st.lists(MACHINES, max_size=2).map(tuple), max_size=4))
def test_at_no_time_are_two_nodes_away(found):
    nodes = [node(f"node-{number}", *machines) for number, machines in enumerate(found)]
    step = next_step(nodes)
    if isinstance(step, Replace):
        assert all(each.is_up for each in nodes if each is not step.node)
        assert not step.node.is_current
    if isinstance(step, Done):
        assert all(each.is_up and each.is_current for each in nodes)


@given(
    st.lists(st.sampled_from(["1", "2"]), min_size=1, max_size=5),
    st.lists(st.integers(min_value=1, max_value=3), min_size=5, max_size=5),
)
def test_every_node_becomes_current_each_replaced_at_most_once(versions, delays):
    """Play a group's part: a machine that is ended drains, goes, and another comes after a while."""
    machines = {f"node-{number}": [replace(UP, version=version)] for number, version in enumerate(versions)}
    coming: dict[str, int] = {}
    replaced: list[str] = []
    for _ in range(200):
        nodes = [node(name, *each) for name, each in machines.items()]
        match next_step(nodes):
            case Done():
                break
            case Replace(chosen):
                replaced.append(chosen.name)
                machines[chosen.name] = [replace(chosen.machines[0], state="Terminating:Wait")]
                coming[chosen.name] = delays[len(replaced) - 1]
            case Wait():
                for name in list(coming):
                    coming[name] -= 1
                    if coming[name] == 0:
                        del coming[name]
                        machines[name] = [replace(UP, version="2")]
    assert isinstance(next_step([node(name, *each) for name, each in machines.items()]), Done)
    assert sorted(replaced) == sorted(f"node-{n}" for n, version in enumerate(versions) if version == "1")
