"""By which names an app may be asked for, and who somebody is that asks for it by another one."""

import contextlib
import socket

import pytest

from rsm_app.jobs.limits import Limits
from rsm_app.jobs.owners import share_shell_runs
from rsm_app.jobs.store import RunStore
from rsm_app.jobs.supervisor import Supervisor
from rsm_app.ui import access
from rsm_app.ui.access import allowed, owner_of, owners_of, visible_run
from rsm_app.ui.same_origin import is_foreign
from tests.faults.many_runs import finished_run
from tests.jobs.small_runs import small_config
from tests.ui.asking import asker
from trainers.errors import InputError

HERE = socket.gethostname().lower()
FAR = ("192.168.1.5", "172.17.0.1", "203.0.113.7", "2001:db8:5::9")
# What people open in a network of their own, from another machine and from a container's host.
KNOWN = [
    *("192.168.1.9:7860", "10.0.0.5", "[fd00::9]:7860", "[fe80::9]", "0.0.0.0:7860", "localhost:8080", ""),
    *(HERE, f"{HERE.partition('.')[0]}:7860", f"{HERE.partition('.')[0]}.local:7860", "x.localhost:7860"),
]
STRANGE = [
    "evil.example",
    "evil.example:7860",
    "192.168.1.9.nip.io",
    "nas",
    f"{HERE}.evil.example",
    "xlocalhost",
]


@pytest.fixture
def alone(monkeypatch):
    """An app that nothing names hosts or proxies to."""
    for name in ("SPACE_ID", "RSM_HOSTS", "GRADIO_ROOT_PATH", "FORWARDED_ALLOW_IPS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(access, "_logged", set())
    return monkeypatch


@pytest.mark.parametrize("address", FAR)
def test_by_an_address_or_a_name_of_this_machine_everybody_is_who_they_are(alone, caplog, address):
    assert len({owner_of(asker(address, host=host)) for host in KNOWN}) == 1
    assert " via " not in owner_of(asker(address, host=KNOWN[0])) and not caplog.records


@pytest.mark.parametrize("host", STRANGE)
@pytest.mark.parametrize("address", [*FAR, "127.0.0.1"])
def test_a_name_that_may_be_a_stranger_s_makes_nobody_who_they_are(alone, caplog, address, host):
    """A page whose name leads here is of one origin with the app; what it asks for says its own name."""
    page = asker(address, host=host, origin=f"http://{host}", x_forwarded_host="127.0.0.1")
    assert not is_foreign(page.request.scope)
    name = host.partition(":")[0]
    assert (
        owner_of(page) == f"{owner_of(asker(address))} via {name}"
        and share_shell_runs(owners_of(page)) is False
    )
    owner_of(page)
    assert caplog.text.count(f"RSM_HOSTS={name} ") == 1
    assert caplog.text.count("let it add X-Forwarded-For") == (address == "127.0.0.1")
    signed_in = asker(address, "ann", host=host)
    assert owners_of(signed_in) == ("ann", owner_of(page))
    # Headers that such a page can write itself change nothing where no proxy is named.
    if address != "127.0.0.1":
        assert owner_of(asker(address, host=host, x_forwarded_for="192.168.1.77")) == owner_of(page)


@pytest.mark.parametrize(
    ("variable", "value", "hosts"),
    [
        ("RSM_HOSTS", "nas", ["nas", "nas:7860", "NAS.:7860"]),
        ("RSM_HOSTS", " Studio.Example , http://nas.example:7860,", ["studio.example", "nas.example"]),
        ("GRADIO_ROOT_PATH", "https://studio.example/lora", ["studio.example", "studio.example:8443"]),
        ("FORWARDED_ALLOW_IPS", "192.168.1.5", ["studio.example", "anything.example"]),
        ("SPACE_ID", "ann/studio", ["ann-studio.hf.space", "anything.example"]),
    ],
)  # fmt: skip
def test_a_name_that_whoever_runs_the_app_vouches_for_is_this_machine_s(
    alone, caplog, variable, value, hosts
):
    alone.setenv(variable, value)
    for host in hosts:
        who = asker("192.168.1.5", host=host)
        assert owner_of(who) == "192.168.1.5" and share_shell_runs(owners_of(who))
    assert not caplog.records
    if variable in ("RSM_HOSTS", "GRADIO_ROOT_PATH"):
        assert owner_of(asker("192.168.1.5", host="x.studio.example")) == "192.168.1.5 via x.studio.example"
        # A forwarder on this machine that adds no header is still not who sits here, but no stranger either.
        through = asker("127.0.0.1", host=hosts[0])
        assert owner_of(through).startswith("127.0.0.1 via ") and share_shell_runs(owners_of(through))


def test_runs_of_a_shell_are_not_those_of_a_stranger_s_page(alone, tmp_path):
    supervisor = Supervisor(RunStore(tmp_path / "runs"), Limits(free_mb=0))
    run = finished_run(supervisor.store, 1)
    for path in (run.job_file, run.request, run.worker_file, run.worker_log):
        path.unlink(missing_ok=True)
    for host, its in (("192.168.1.9", True), ("localhost", True), ("evil.example", False)):
        for address in ("192.168.1.5", "127.0.0.1"):
            who = asker(address, host=host)
            assert (
                allowed(run, who) is its and (visible_run(supervisor.store, run.id, who) is not None) is its
            )
            assert [row.id for row in supervisor.index.rows(viewer=owners_of(who), scan=True)] == [
                run.id
            ] * its
    behind = asker("127.0.0.1", host="studio.example", x_forwarded_for="192.168.1.5")
    assert allowed(run, behind), "a proxy that says whom it was asked by"
    alone.setenv("RSM_HOSTS", "studio.example")
    assert allowed(run, asker("127.0.0.1", host="studio.example"))
    supervisor.close()


def test_many_names_have_one_share_and_see_what_is_theirs_alone(alone, tmp_path):
    """Behind a forwarder that adds no header a visitor says whatever name they like."""
    alone.setenv("RSM_DEVICES", "cpu")
    supervisor = Supervisor(RunStore(tmp_path / "runs"), Limits(free_mb=0, owner_queued=3))
    alone.setattr(supervisor, "tick", lambda: None)
    for address, sitting in (("127.0.0.1", 3), ("192.168.1.5", 0)):
        names = [asker(address, host=f"h{number}.example") for number in range(8)]
        assert len({owner_of(who) for who in names}) == 8
        assert len({access.share_of(who) for who in names}) == 1
        for who, most in ((None, 3), (asker(address), sitting)):
            queued = 0
            for one in names if who is None else [who] * 4:
                with contextlib.suppress(InputError):
                    run = supervisor.submit(small_config(), None, *owners_of(one))
                    assert [allowed(run, other) for other in names] == [other is one for other in names]
                    queued += 1
            assert queued == most, (address, who)
    supervisor.close()
