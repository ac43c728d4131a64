"""Where a process stands, by torchrun's variables and by SLURM's."""

from __future__ import annotations

import pytest

from alphaaction_d2.engine.distributed.environment import (
    check_gpus,
    first_host,
    launcher_variables,
)

TORCHRUN = {
    "RANK": "5",
    "WORLD_SIZE": "8",
    "LOCAL_RANK": "1",
    "LOCAL_WORLD_SIZE": "4",
    "MASTER_ADDR": "node1",
    "MASTER_PORT": "29500",
}
SRUN = {
    "SLURM_JOB_ID": "4321",
    "SLURM_STEP_ID": "0",
    "SLURM_PROCID": "5",
    "SLURM_NTASKS": "8",
    "SLURM_LOCALID": "1",
    "SLURM_TASKS_PER_NODE": "4(x2)",
    "SLURM_JOB_NODELIST": "node[03-04]",
}
OF_SRUN = {**TORCHRUN, "MASTER_ADDR": "node03", "MASTER_PORT": str(10000 + 8 * 4321 % 20000)}


def changed(environment: dict[str, str], changes: dict[str, str | None]) -> dict[str, str]:
    return {k: v for k, v in {**environment, **changes}.items() if v is not None}


def test_a_process_of_torchrun():
    assert launcher_variables({**TORCHRUN, "HOME": "/root"}) == TORCHRUN


def test_torchrun_inside_a_job_step_counts():
    assert launcher_variables({**SRUN, "SLURM_PROCID": "1", **TORCHRUN}) == TORCHRUN


def test_a_task_of_srun():
    assert launcher_variables(SRUN) == OF_SRUN
    next_step = launcher_variables({**SRUN, "SLURM_STEP_ID": "1"})
    assert next_step["MASTER_PORT"] != OF_SRUN["MASTER_PORT"]
    given = {"MASTER_ADDR": "10.0.0.7", "MASTER_PORT": "1234"}
    assert launcher_variables({**SRUN, **given}) == {**OF_SRUN, **given}
    in_script = {**SRUN, "ENVIRONMENT": "BATCH"}
    assert launcher_variables(in_script) == OF_SRUN


def test_the_number_of_tasks_of_every_node_that_was_asked_for():
    asked = {"SLURM_TASKS_PER_NODE": None, "SLURM_NTASKS_PER_NODE": "4"}
    assert launcher_variables(changed(SRUN, asked)) == OF_SRUN
    with pytest.raises(ValueError, match=r"LOCAL_WORLD_SIZE=3.*srun --ntasks-per-node"):
        launcher_variables(changed(SRUN, {**asked, "SLURM_NTASKS_PER_NODE": "3"}))


def test_the_job_step_goes_before_the_job():
    step = {
        **SRUN,
        "SLURM_STEP_NUM_TASKS": "6",
        "SLURM_STEP_TASKS_PER_NODE": "3(x2)",
        "SLURM_STEP_NODELIST": "node04,node[07-09]",
        "SLURM_PROCID": "4",
    }
    found = launcher_variables(step)
    names = ("WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR")
    assert [found[name] for name in names] == ["6", "3", "node04"]


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"MASTER_ADDR": "node1", "MASTER_PORT": "29500", "OMP_NUM_THREADS": "1"},
        changed(SRUN, {"SLURM_PROCID": None, "SLURM_STEP_ID": None}),  # salloc
        {**SRUN, "SLURM_NTASKS": "1", "SLURM_TASKS_PER_NODE": "1", "SLURM_PROCID": "0"},
        {**SRUN, "SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0"},  # an interactive job step
        {**changed(SRUN, {"SLURM_STEP_ID": None}), "ENVIRONMENT": "BATCH", "SLURM_PROCID": "0"},
        {**TORCHRUN, "RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"},
    ],
)
def test_a_process_that_nobody_started_as_one_of_several(environment):
    assert launcher_variables(environment) is None


@pytest.mark.parametrize(
    ("environment", "changes", "message"),
    [
        (TORCHRUN, {"WORLD_SIZE": None}, "but WORLD_SIZE can't be told: start with torchrun"),
        (TORCHRUN, {"RANK": None, "MASTER_PORT": None}, "but RANK, MASTER_PORT can't be told"),
        (TORCHRUN, {"MASTER_ADDR": ""}, "MASTER_ADDR can't be told"),
        (TORCHRUN, {"RANK": "one"}, "RANK=one, .*: whole numbers are needed"),
        (TORCHRUN, {"WORLD_SIZE": "6"}, "WORLD_SIZE=6, .*the same number of processes"),
        (TORCHRUN, {"RANK": "8"}, "RANK=8, WORLD_SIZE=8, .*: processes count from 0"),
        (TORCHRUN, {"LOCAL_RANK": "4"}, "LOCAL_RANK=4, .*: processes count from 0"),
        (TORCHRUN, {"LOCAL_RANK": "2"}, "LOCAL_RANK=2, .*one machine after another"),
        (TORCHRUN, {"MASTER_PORT": "70000"}, "MASTER_PORT=70000: .*ports go from 1 to 65535"),
        (SRUN, {"SLURM_NTASKS": None}, "WORLD_SIZE can't be told"),
        (SRUN, {"SLURM_LOCALID": None}, "LOCAL_RANK can't be told"),
        (SRUN, {"SLURM_TASKS_PER_NODE": None}, "LOCAL_WORLD_SIZE can't be told"),
        (SRUN, {"SLURM_JOB_NODELIST": None}, "MASTER_ADDR can't be told"),
        (SRUN, {"SLURM_JOB_NODELIST": "node[1-"}, "MASTER_ADDR can't be told"),
        (SRUN, {"SLURM_JOB_ID": None}, "MASTER_PORT can't be told"),
        (SRUN, {"SLURM_TASKS_PER_NODE": "3,5"}, "LOCAL_WORLD_SIZE=3,5, .*whole numbers"),
        (SRUN, {"SLURM_TASKS_PER_NODE": "3(x2)"}, "LOCAL_WORLD_SIZE=3, .*same number"),
        (SRUN, {"SLURM_PROCID": "2"}, "RANK=2, .*--distribution=block"),
        (SRUN, {"MASTER_PORT": "http"}, "MASTER_PORT=http: whole numbers"),
    ],
)
def test_variables_that_make_no_sense(environment, changes, message):
    with pytest.raises(ValueError, match=message) as error:
        launcher_variables(changed(environment, changes))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("nodelist", "host"),
    [
        ("gpu1", "gpu1"),
        ("gpu1,gpu2", "gpu1"),
        ("node[03-05,7],gpu1", "node03"),
        ("node[7,03-05]", "node7"),
        ("rack[2-3]-node[010-012].cluster,x", "rack2-node010.cluster"),
        ("n-1.example.org", "n-1.example.org"),
        *((text, "") for text in ("", ",a", "node[", "node]", "node[a-b]", "a b", "node[]")),
    ],
)
def test_first_host(nodelist, host):
    assert first_host(nodelist) == host


def test_too_few_gpus():
    check_gpus(2, 2)
    with pytest.raises(ValueError, match="8 processes on this machine need a GPU each.* has 2: "):
        check_gpus(8, 2)
