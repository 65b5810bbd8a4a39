"""What a run has used: how it is measured, stored, summed and shown."""

import json
import sys
from types import ModuleType, SimpleNamespace

import pytest
from experiments import experiment
from forked import Run
from project import QUICK, Project

from dora_train.engine.experiment import claims
from dora_train.engine.experiment.records import State, Usage
from dora_train.engine.run import usage as module
from dora_train.engine.run.energy import Processors
from dora_train.engine.run.usage import Meter, UsageFile
from dora_train.engine.upstream.nvml_usage import Gauge
from dora_train.engine.watch.usage import Used, attempts_of, short, total, used_by
from dora_train.report.query import value
from dora_train.report.records import flattened, of_run
from dora_train.report.runs import read

# --- measured ---


class Clock:
    def __init__(self, monkeypatch):
        self.now = 100.0
        monkeypatch.setattr(module.time, "monotonic", lambda: self.now)


@pytest.fixture
def clock(monkeypatch) -> Clock:
    return Clock(monkeypatch)


def test_it_measures_seldom_and_at_the_end(clock):
    written: list[tuple[float, float, bool]] = []
    meter = Meter(0, 2, lambda usage: written.append((usage.wall, usage.saved, usage.done)))
    for _ in range(80):  # a checkpoint each second
        clock.now += 1
        meter.saved()
        meter.measure()
    assert [wall for wall, _, _ in written] == [1, 21, 41, 61]
    clock.now += 3
    meter.measure(now=True, done=True)
    assert written[-1] == (83, 80, True)


def test_cpu_and_memory_of_this_process(clock):
    meter = Meter(1, 2, lambda usage: None)
    end = module.time.process_time() + 0.05
    while module.time.process_time() < end:
        pass
    block = bytearray(50_000_000)
    meter.measure(now=True)
    assert 0.04 < meter.usage.cpu < 20 and meter.usage.memory > len(block)
    assert (meter.usage.rank, meter.usage.cores, meter.usage.gpus) == (1, 2, 0)


def test_a_disk_that_is_full_costs_no_run(clock):
    def write(usage):
        raise OSError(28, "No space left on device")

    Meter(0, 1, write).measure(now=True)


class NVMLError(Exception):
    pass


def nvml(monkeypatch, samples, joules) -> None:
    """A driver with one GPU."""
    fake = ModuleType("pynvml")
    fake.NVMLError, fake.NVML_GPU_UTILIZATION_SAMPLES = NVMLError, 1
    fake.nvmlInit = lambda: None
    fake.nvmlDeviceGetHandleByUUID = lambda uuid: uuid

    def get_samples(device, kind, since):
        new = [sample for sample in samples if sample.timeStamp > since]
        if not new:
            raise NVMLError("not found")
        return 1, new

    def get_energy(device):
        if joules is None:
            raise NVMLError("not supported")
        return joules.pop(0) * 1000

    fake.nvmlDeviceGetSamples, fake.nvmlDeviceGetTotalEnergyConsumption = get_samples, get_energy
    monkeypatch.setitem(sys.modules, "pynvml", fake)


def sample(time, percent):
    return SimpleNamespace(timeStamp=time, sampleValue=SimpleNamespace(uiVal=percent))


def test_a_gpu(monkeypatch):
    samples = [sample(1, 100), sample(2, 50)]
    nvml(monkeypatch, samples, [7.0])
    gauge = Gauge.of("GPU-1")
    assert gauge.busy() == 0.75 and gauge.joules() == 7.0
    assert gauge.busy() is None, "there is no new sample"
    samples.append(sample(3, 10))
    assert gauge.busy() == 0.1


def test_a_gpu_that_counts_no_energy_and_a_machine_without_a_driver(monkeypatch):
    nvml(monkeypatch, [], None)
    gauge = Gauge.of("GPU-1")
    assert gauge.joules() is None and gauge.busy() is None
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert Gauge.of("GPU-1") is None


def meter_of_a_run_on(monkeypatch, joules: list[float], is_initialized=lambda: True) -> Meter:
    """The meter of a run on a GPU that counts these joules."""
    nvml(monkeypatch, [sample(1, 50)], joules)
    cuda = SimpleNamespace(
        is_initialized=is_initialized,
        current_device=lambda: 0,
        get_device_properties=lambda index: SimpleNamespace(uuid="1"),
        max_memory_reserved=lambda: 5,
    )
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=cuda))
    monkeypatch.setattr(module, "Processors", lambda: SimpleNamespace(joules=lambda cpu: None))
    return Meter(0, 1, lambda usage: None)


def test_a_run_on_a_gpu(monkeypatch, clock):
    meter = meter_of_a_run_on(monkeypatch, [100.0, 100.0, 160.0])
    clock.now += 20
    meter.measure()
    clock.now += 20
    meter.measure()
    usage = meter.usage
    assert (usage.gpus, usage.gpu_busy, usage.gpu_memory, usage.energy) == (1, 10.0, 5, 60.0)


def test_a_short_run_on_a_gpu(monkeypatch, clock):
    """CUDA starts after the first measurement, and the run ends before the next one is due."""
    started = [False]
    joules = [100.0, 160.0, 190.0]
    meter = meter_of_a_run_on(monkeypatch, joules, is_initialized=lambda: started[0])
    meter.measure()
    started[0] = True
    clock.now += 1
    meter.measure()
    clock.now += 5
    meter.measure(now=True, done=True)
    assert (meter.usage.gpus, meter.usage.energy) == (1, 90.0)


def test_the_counters_of_the_processors(tmp_path, monkeypatch):
    busy = [100.0, 110.0, 120.0, 130.0, 140.0]
    monkeypatch.setattr("dora_train.engine.run.energy._busy", lambda: busy.pop(0))
    folder = tmp_path / "intel-rapl:0"
    folder.mkdir()
    (tmp_path / "intel-rapl:0:0").mkdir()
    (folder / "max_energy_range_uj").write_text("10000000\n")
    (folder / "energy_uj").write_text("9000000\n")
    processors = Processors(tmp_path)
    (folder / "energy_uj").write_text("1000000\n")  # it began anew at 10 J
    assert processors.joules(5.0) == pytest.approx(1.0), "half of the work of 10 s was ours"
    (folder / "energy_uj").unlink()
    assert processors.joules(5.0) is None
    assert Processors(tmp_path / "none").joules(1.0) is None


def test_the_counter_of_the_whole_machine_is_no_processor(tmp_path):
    for number, name in enumerate(("package-0", "psys", "package-1")):
        (tmp_path / f"intel-rapl:{number}").mkdir()
        (tmp_path / f"intel-rapl:{number}" / "name").write_text(f"{name}\n")
    found = sorted(folder.name for folder in Processors(tmp_path).folders)
    assert found == ["intel-rapl:0", "intel-rapl:2"]


def test_a_rank_that_began_before_the_claim_writes_to_the_attempt_of_the_first(tmp_path):
    one = experiment(tmp_path, {"seed": 1}, state=State.NEW)
    first, second = UsageFile(one, 1, True), UsageFile(one, 0, False)
    second.write(Usage(1, 5, 5))
    assert one.usages() == {}, "nobody has claimed it"
    claims.claim(one)
    second.write(Usage(1, 5, 5))
    first.write(Usage(0, 5, 5))
    assert [usage.rank for usage in one.usages()[1]] == [0, 1]
    (one.attempts / "1.json").unlink()
    second.write(Usage(1, 9, 9))
    assert one.usages()[1][1].wall == 9, "also if the first one is gone by now"


# --- summed ---


def test_in_words():
    used = Used(3600, 7200, 3600, 31.4 * 3600, 27.632 * 3600, energy=6.1 * 3.6e6, lost=7560)
    many = Used(**{**vars(used), "interruptions": 7})
    assert str(many) == "31.4 GPU h, 12% idle, 2.1 h repeated after 7 interruptions, 6.1 kWh"
    assert str(Used(3600, 7200, 3600)) == "2 CPU h, 50% idle"
    assert short(many) == "31.4 GPU h" and short(None) == ""


def test_attempts_and_ranks(tmp_path):
    one = experiment(tmp_path, {"seed": 1}, state=State.RUNNING)
    assert used_by(one) is None
    for attempt in (1, 2):
        (one.attempts / f"{attempt}.json").parent.mkdir(exist_ok=True)
        (one.attempts / f"{attempt}.json").write_text("{}")
    one.write_usage(1, Usage(0, 100, 60, cores=2, cpu=50, memory=10, gpus=1, gpu_memory=3))
    one.write_usage(1, Usage(1, 90, 60, cores=2, cpu=40, memory=10, gpus=1, gpu_memory=3))
    one.write_usage(2, Usage(0, 50, 20, cores=2, cpu=60, memory=30, energy=5.0))
    (one.attempts / "3.usage.0.json").write_text("{half")
    assert one.attempt_numbers() == [1, 2], "no measure is an attempt"
    first, second = attempts_of(one, live=True).values()
    assert (first.wall, first.cpu, first.cpu_busy, first.gpu) == (100, 380, 90, 190)
    assert (first.memory, first.gpu_memory, first.lost, first.interruptions) == (20, 6, 40, 1)
    assert (second.lost, second.interruptions, second.energy) == (0, 0, 5.0), "it runs"
    both = used_by(one)
    assert (both.wall, both.lost, both.interruptions, both.memory) == (150, 70, 2, 30)
    assert total([both, None, both]).wall == 300 and total([]).wall == 0
    one.write_usage(2, Usage(0, 50, 20, done=True))
    assert used_by(one).interruptions == 1


def test_the_columns_of_the_report(tmp_path):
    one = experiment(tmp_path, {"seed": 1})
    other = experiment(tmp_path, {"seed": 2})
    one.write_usage(1, Usage(0, 3600, 3600, True, cores=2, cpu=3600, memory=2_000_000_000))
    with_use, without = read({one: [], other: []}, None)
    [row] = flattened([of_run(with_use, [], [])])
    assert row["used.cpu_h"] == 2 and row["used.memory_gb"] == 2 and row["used.kwh"] is None
    assert value(with_use, "used.cpu_h") == 2 and value(without, "used.cpu_h") is None


# --- the whole way ---


def test_a_run_that_was_killed(project: Project, monkeypatch):
    killed = Run(project, "run", *QUICK, fault=("step", 4))
    assert killed.wait() == -9
    project.dora("run", *QUICK)
    one = project.xp
    first, second = one.usages().values()
    assert not first[0].done and second[0].done and second[0].saved > 0
    assert second[0].memory > 50_000_000 and second[0].cpu > 0
    shown = project.dora("info", "-f", one.sig)
    assert "used       " in shown and "repeated after 1 interruption" in shown
    project.env["DORA_JSON"] = "1"
    lines = project.dora("info", "-f", one.sig).splitlines()
    [used] = [json.loads(line)["used"] for line in lines if line.startswith("{")]
    assert list(used["attempts"]) == ["1", "2"] and used["interruptions"] == 1
    for name in ("history.json", "result.json"):
        assert "used" not in (one.folder / name).read_text()
