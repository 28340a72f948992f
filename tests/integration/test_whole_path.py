"""Jobs through every wing: real broker, all services, a pilot as a process, a user's client."""

from __future__ import annotations

import hashlib
import os
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from producers import Client
from producers.errors import InvalidJobError
from schemas.job import JobStatus
from schemas.messages.user import SubmitJobs
from tests.support.deployment import Deployment, deployment
from tests.support.wait import wait_until

pytestmark = pytest.mark.integration

S = JobStatus


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Iterator[Deployment]:
    with deployment(tmp_path_factory.mktemp("path")) as running, running.running_pilot(1):
        yield running


@pytest.fixture(scope="module")
def client(place) -> Iterator[Client]:
    with place.client() as one:
        yield one


def script(folder: Path, text: str, name: str = "run.sh") -> Path:
    path = folder / name
    path.write_text("#!/bin/sh\n" + text)
    path.chmod(0o755)
    return path


def described(folder: Path, jdl: str) -> Path:
    path = folder / "job.jdl"
    path.write_text(jdl)
    return path


def run(client: Client, description: Path | str, timeout: float = 60) -> tuple[int, JobStatus]:
    submission = client.submit([description])
    status = client.wait(submission.ids, timeout=timeout)[submission.first]
    return submission.first, status


def outputs(client: Client, job: int, folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in client.output(job, folder)}


def reason(client: Client, job: int) -> str:
    detail = client.job(job)
    return " | ".join(f"{line.minor} {line.cause}" for line in detail.history) + detail.attempts[-1].reason


def test_a_job_with_everything_small(client, tmp_path):
    script(tmp_path, 'cat data.txt; echo "$1 $2"; echo oops >&2; echo "$COLOR $JOBID" > made.txt')
    (tmp_path / "data.txt").write_text("from the sandbox\n")
    jdl = """
      Executable = "run.sh"; Arguments = "one 'two words'"; JobName = "everything";
      InputSandbox = {"run.sh", "data.txt"}; OutputSandbox = {"std.out", "std.err", "*.txt", "absent"};
      Environment = {"COLOR=blue"};
    """
    job, status = run(client, described(tmp_path, jdl))
    assert status is S.DONE
    found = outputs(client, job, tmp_path / "out")
    assert found["std.out"] == b"from the sandbox\none two words\n"
    assert found["std.err"] == b"oops\n"
    assert found["made.txt"] == f"blue {job}\n".encode()
    detail = client.job(job)
    assert [line.status for line in detail.history][:3] == [S.RECEIVED, S.WAITING, S.MATCHED]
    assert detail.history[-1].status is S.DONE
    times = [line.time for line in detail.history]
    assert times == sorted(times)
    assert detail.summary.exit_code == 0
    assert detail.summary.usage.wall_seconds > 0


def test_the_payload_has_a_limited_proxy_of_its_owner(client, tmp_path):
    script(tmp_path, 'stat -c %a "$X509_USER_PROXY"; openssl x509 -in "$X509_USER_PROXY" -noout -text')
    jdl = 'Executable = "run.sh"; InputSandbox = {"run.sh"}; OutputSandbox = {"std.out"};'
    job, status = run(client, described(tmp_path, jdl))
    assert status is S.DONE
    text = outputs(client, job, tmp_path / "out")["std.out"].decode()
    assert text.startswith("600\n")
    assert "1.3.6.1.4.1.3536.1.1.1.9" in text  # limited
    assert client.identity.rsplit("=", 1)[-1] in text


def test_large_sandboxes_travel_in_chunks(client, tmp_path):
    large = os.urandom(1_500_000)
    (tmp_path / "large.bin").write_bytes(large)
    script(tmp_path, "sha256sum large.bin | cut -c1-64; cat large.bin large.bin > twice.bin")
    jdl = """
      Executable = "run.sh"; InputSandbox = {"run.sh", "large.bin"}; OutputSandbox = {"std.out", "twice.bin"};
    """
    job, status = run(client, described(tmp_path, jdl))
    assert status is S.DONE
    found = outputs(client, job, tmp_path / "out")
    assert found["std.out"].decode().strip() == hashlib.sha256(large).hexdigest()
    assert found["twice.bin"] == large + large


def test_input_data_comes_through_the_replica_catalog(place, client, tmp_path):
    data = b"numbers\n" * 1000
    place.layout.storage.mkdir(exist_ok=True, mode=0o700)
    stored = place.layout.storage / "numbers.txt"
    stored.write_bytes(data)
    lfn = "/local/test/numbers.txt"
    checksum = f"{zlib.adler32(data):08x}"
    client.register_replica(lfn, "SE.Local", stored.as_uri(), len(data), checksum)
    jdl = (
        f'Executable = "/usr/bin/wc"; Arguments = "-c numbers.txt"; InputData = "LFN:{lfn}"; OutputSandbox = "std.out";'
    )
    job, status = run(client, jdl)
    assert status is S.DONE
    assert outputs(client, job, tmp_path)["std.out"] == f"{len(data)} numbers.txt\n".encode()
    assert S.CHECKING in [line.status for line in client.job(job).history]


def test_input_data_that_is_nowhere_fails_with_its_name(client):
    job, status = run(client, 'Executable = "/bin/true"; InputData = "LFN:/local/test/lost.txt";')
    assert status is S.FAILED
    assert "/local/test/lost.txt" in str(client.job(job).history)


def test_a_parametric_job_is_one_range(client, tmp_path):
    jdl = """
      Executable = "/bin/echo"; Arguments = "%s of %n"; Parameters = {"a", "b", "c", "d"}; OutputSandbox = {"std.out"};
    """
    submission = client.submit([jdl])
    assert submission.count == 4
    assert set(client.wait(submission.ids, timeout=60).values()) == {S.DONE}
    texts = [outputs(client, job, tmp_path)["std.out"] for job in submission.ids]
    assert texts == [b"a of 0\n", b"b of 1\n", b"c of 2\n", b"d of 3\n"]


@pytest.mark.parametrize(
    ("executable", "wanted"),
    [
        ("/bin/false", "exit code 1"),
        ("/no/such/program", "does not exist"),
        ("nothing.sh", "neither in the input sandbox nor on this node"),
    ],
)
def test_failures_say_why(client, executable, wanted):
    job, status = run(client, f'Executable = "{executable}";')
    assert status is S.FAILED
    assert wanted in reason(client, job)


def test_a_payload_that_eats_memory_is_stopped(client, tmp_path):
    (tmp_path / "eat.py").write_text(
        "import time\nkeep = []\nwhile True:\n  keep.append(b'x' * 50_000_000)\n  time.sleep(0.01)\n"
    )
    jdl = 'Executable = "/usr/bin/env"; Arguments = "python3 eat.py"; InputSandbox = {"eat.py"};'
    job, status = run(client, described(tmp_path, jdl), timeout=120)
    assert status is S.FAILED
    assert "memory limit exceeded" in reason(client, job)


def test_a_payload_beyond_its_cpu_time_is_stopped(client):
    # CPUTime is work: 100 normalised seconds are 10 s on a processor of power 10.
    job, status = run(client, 'Executable = "/bin/sh"; Arguments = "-c \'while :; do :; done\'"; CPUTime = 100;', 90)
    assert status is S.FAILED
    assert "CPU time limit exceeded" in reason(client, job)


def test_a_running_job_is_killed_within_two_seconds(client):
    submission = client.submit(['Executable = "/bin/sh"; Arguments = "-c \'trap : TERM; while :; do sleep 1; done\'";'])
    job = submission.first
    wait_until(lambda: client.job(job).summary.status is S.RUNNING, 30, "it runs")
    asked = time.time()
    outcome = client.kill([job])[0]
    assert outcome.ok
    assert client.wait([job], timeout=30)[job] is S.KILLED
    detail = client.job(job)
    assert detail.summary.ended is not None
    assert detail.summary.ended - asked < 2.0


def test_a_waiting_job_is_killed_at_once_and_can_be_run_again(client):
    submission = client.submit(['Executable = "/bin/true"; Platform = "vax-vms";'])
    job = submission.first
    assert client.job(job).summary.status is S.WAITING
    assert client.kill([job])[0].status is S.KILLED
    again = client.kill([job])[0]
    assert not again.ok
    assert "already" in again.reason
    assert client.reschedule([job])[0].ok
    wait_until(lambda: client.job(job).summary.status is S.WAITING, 20, "it waits again")
    assert client.delete([job])[0].status is S.DELETED
    assert job not in [one.job for one in client.jobs()]


def test_a_rescheduled_job_runs_as_a_new_attempt(client):
    job, status = run(client, 'Executable = "/bin/true";')
    assert status is S.DONE
    assert client.reschedule([job])[0].ok
    wait_until(lambda: client.job(job).summary.status is S.DONE, 30, "it is done again")
    detail = client.job(job)
    assert [attempt.attempt for attempt in detail.attempts] == [1, 2]
    assert [attempt.outcome for attempt in detail.attempts] == ["Done", "Done"]


def test_commands_on_jobs_that_are_not_there(client):
    assert client.kill([10**9])[0].reason == "no such job"


def test_an_idempotency_key_makes_a_retry_harmless(client):
    from producers.errors import PilotageError

    first = client.submit(['Executable = "/bin/true";'], key="same")
    assert client.submit(['Executable = "/bin/true";'], key="same").first == first.first
    with pytest.raises(PilotageError, match="was used for another submission"):
        client.submit(['Executable = "/bin/false";'], key="same")


def test_a_bad_description_is_refused_here_and_there(place, client):
    bad = 'Executable = "/bin/true"; Priority = 11; CPUTime = 5; Sites = "X";'
    with pytest.raises(InvalidJobError):
        client.submit([bad])
    with place.session(place.user()) as session:
        from broker.session import RequestRefusedError

        with pytest.raises(RequestRefusedError) as caught:
            session.request(SubmitJobs(descriptions=('Executable = "/bin/true";', bad)))
        refused = caught.value.refused
        assert refused.code == "invalid"
        assert {error.attribute for error in refused.errors} >= {"Priority", "CPUTime"}
        assert all("description 2" in error.message for error in refused.errors)


def test_bulk_is_atomic(place, client):
    before = client.jobs(limit=1)[0].job
    with pytest.raises(InvalidJobError):
        client.submit(['Executable = "/bin/true"; Parameters = 50;', "Executable = ;"])
    assert client.jobs(limit=1)[0].job == before


def test_many_jobs_are_expanded_in_slices(client):
    submission = client.submit(
        ['Executable = "/bin/true"; Platform = "vax-vms"; Parameters = 2500; JobGroup = "many";']
    )
    wait_until(lambda: client.jobs([submission.first + 2499]) != [], 30, "the last slice is written")
    outcomes = client.kill(submission.ids)
    assert len(outcomes) == 2500
    assert {outcome.status for outcome in outcomes} == {S.KILLED}


def test_work_directories_are_gone(place):
    work = place.layout.pilot_work(1)
    wait_until(lambda: not [p for p in work.glob("pilot-*/*") if p.is_dir()], 10, "nothing is left")
