"""The nouns of tracking, features, pipelines and A/B tests do against the real services what they say."""

import json

import pytest

TASKS = [{"name": "first", "entry_point": "absent.tasks:first"}]


class TestRuns:
    async def test_a_run_is_made_found_and_finished(self, mlops):
        run = (await mlops("run", "create", "churn", "--name", "baseline", "--param", "lr=0.1", "-q")).out.strip()
        shown = (await mlops("run", "show", run, "-o", "json")).json
        assert (shown["run_name"], shown["parameters"], shown["status"]) == ("baseline", {"lr": 0.1}, "RUNNING")
        assert (await mlops("run", "search", "params.lr = 0.1", "-e", "churn", "-q")).out.strip() == run
        assert (await mlops("run", "finish", run, "--status", "KILLED", "-o", "json")).json["status"] == "KILLED"

    async def test_a_query_that_is_wrong_is_explained(self, mlops):
        outcome = await mlops("run", "search", "metrics.")
        assert outcome.code == 1
        assert outcome.err

    async def test_experiments_are_made_listed_and_deleted(self, mlops):
        made = (await mlops("experiment", "create", "churn", "--tag", "team=growth", "-o", "json")).json
        assert made["tags"] == {"team": "growth"}
        assert (await mlops("experiment", "list", "-q")).out.strip() == made["id"]
        assert (await mlops("experiment", "delete", "churn", "--yes")).code == 0
        assert (await mlops("experiment", "show", "churn")).code == 3

    async def test_experiments_are_put_away_brought_back_and_removed_for_ever(self, mlops):
        made = (await mlops("experiment", "create", "team/churn", "-q")).out.strip()
        tree = (await mlops("experiment", "tree", "-o", "json")).json
        assert [(line["path"], line["is_folder"], line["experiments"]) for line in tree] == [("team", True, 1)]
        assert (await mlops("experiment", "archive", "team/churn", "-o", "json")).json["archived_at"]
        assert (await mlops("experiment", "restore", made, "-o", "json")).json["archived_at"] is None
        assert (await mlops("experiment", "purge", made, "-o", "json")).json["is_preview"] is True
        assert (await mlops("experiment", "purge", made, "--confirm", "churn")).code == 1
        assert (await mlops("experiment", "purge", made, "--confirm", "team/churn")).code == 0
        assert (await mlops("experiment", "show", made)).code == 3

    async def test_runs_are_compared_corrected_copied_moved_and_talked_about(self, mlops):
        await mlops("experiment", "create", "kept")
        ids = [
            (await mlops("run", "create", "churn", "--name", "v0.1", "--param", f"lr={lr}", "-q")).out.strip()
            for lr in (0.1, 0.2)
        ]
        rows = (await mlops("run", "compare", *ids, "-o", "json")).json
        assert rows == [{"field": "params.lr", ids[0]: 0.1, ids[1]: 0.2}]
        table = (await mlops("run", "compare", *ids)).out
        assert f"v0.1 ({ids[0][-6:]})" in table
        corrected = await mlops("run", "correct", ids[0], "lr=0.3", "--reason", "a slip", "-o", "json")
        assert corrected.json["parameters"] == {"lr": 0.3}
        await mlops("run", "finish", ids[0])
        copy = (await mlops("run", "copy", ids[0], "kept", "--name", "best", "-o", "json")).json
        assert (copy["run_name"], copy["parameters"]) == ("best", {"lr": 0.3})
        assert (await mlops("run", "move", ids[1], "kept", "-o", "json")).json["experiment_id"] == copy["experiment_id"]
        assert (await mlops("run", "comment", ids[0], "good, @grace", "-o", "json")).json["mentions"] == ["grace"]

    async def test_sweeps_are_made_of_files_shown_stopped_and_gone_on_with(self, mlops, tmp_path):
        files = {
            "sweep.json": json.dumps({"method": "grid", "metric": {"name": "loss"}, "parameters": {"a": [1, 2]}}),
            "sweep.toml": 'method = "grid"\n[parameters]\na = [1, 2]\n',
            "sweep.yaml": "method: grid\nmetric: {name: loss}\nparameters: {a: {values: [1, 2]}}\n",
        }
        made = []
        for name, text in files.items():
            (tmp_path / name).write_text(text)
            created = await mlops("sweep", "create", "churn", str(tmp_path / name), "--objective", "loss", "-o", "json")
            assert (created.json["size"], created.json["parameters"]) == (2, {"a": {"values": [1, 2]}})
            made.append(created.json["id"])
        assert (await mlops("sweep", "list", "-e", "churn", "-q")).out.split() == made[::-1]
        stopped = await mlops("sweep", "stop", made[0], "--reason", "enough", "-o", "json")
        assert (stopped.json["status"], stopped.json["status_reason"]) == ("KILLED", "enough")
        assert (await mlops("sweep", "resume", made[0], "--max-trials", "1", "-o", "json")).json["size"] == 1
        assert (await mlops("sweep", "show", made[0], "-o", "json")).json["status"] == "RUNNING"
        assert (await mlops("sweep", "best", made[0], "-o", "json")).json == []
        assert (await mlops("sweep", "trials", made[0], "-o", "json")).json == []
        assert (await mlops("sweep", "show", "0" * 32)).code == 3

    @pytest.mark.parametrize(
        ("name", "text"),
        [
            ("a.json", "[1]"),
            ("a.toml", "= 1"),
            ("a.yaml", "a: [1"),
            ("a.yaml", "a: 2026-01-01"),
            ("a.json", '{"parameters": {"x": {"distribution": "beta"}}}'),
        ],
    )
    async def test_a_file_that_is_no_sweep_is_wrong_usage(self, mlops, tmp_path, name, text):
        (tmp_path / name).write_text(text)
        assert (await mlops("sweep", "create", "churn", str(tmp_path / name), "--objective", "loss")).code == 2

    async def test_nothing_to_sync_is_no_error(self, mlops):
        assert (await mlops("run", "sync", "-o", "json")).json == {"delivered": 0, "remaining": 0}


class TestFeatures:
    async def test_rows_go_in_and_values_come_out(self, mlops, tmp_path):
        options = ("--entity", "user_id", "-f", "age=int", "-f", "score=float")
        assert (await mlops("feature", "create-set", "user", *options, "-q")).out == "user\n"
        rows = [{"user_id": name, "event_timestamp": "2026-01-01T00:00:00Z", "age": 36, "score": 0.5} for name in "ab"]
        source = tmp_path / "rows.jsonl"
        source.write_text("\n".join(json.dumps(row) for row in rows))
        assert (await mlops("feature", "ingest", "user", str(source), "-o", "json")).json["rows"] == 2
        served = (await mlops("feature", "serve", "a", "-f", "age", "-o", "json")).json
        assert served[0]["values"] == {"age": 36}
        labels = '[{"user_id": "a", "event_timestamp": "2026-01-02T00:00:00Z"}]'
        target = tmp_path / "out" / "training.parquet"
        made = await mlops(
            "feature", "training-set", "-", "-f", "user:age", "--to", str(target), "-o", "json", given=labels
        )
        assert made.json["row_count"] == 1
        assert target.read_bytes()[:4] == b"PAR1"

    @pytest.mark.parametrize("content", ["{", "age,score\n1,2\n"])
    async def test_a_file_that_is_no_json_is_wrong_usage(self, mlops, tmp_path, content):
        (tmp_path / "rows").write_text(content)
        outcome = await mlops("feature", "ingest", "user", str(tmp_path / "rows"))
        assert outcome.code == 2
        assert "JSON" in outcome.err


class TestPipelines:
    async def test_a_pipeline_is_made_run_and_cancelled(self, mlops):
        document = json.dumps({"name": "nightly", "tasks": TASKS})
        assert (await mlops("pipeline", "create", "-", given=document)).code == 0
        run = (await mlops("pipeline", "run", "nightly", "-q")).out.strip()
        assert (await mlops("pipeline", "tasks", run, "-o", "json")).json[0]["task"] == "first"
        assert (await mlops("pipeline", "cancel", run)).code == 0
        assert (await mlops("pipeline", "status", run, "-q")).out.strip() in {"cancelled", "cancelling"}
        assert (await mlops("pipeline", "runs", "nightly", "-q")).out.strip() == run

    async def test_a_schedule_is_set_and_paused(self, mlops):
        await mlops("pipeline", "create", "-", given=json.dumps({"name": "nightly", "tasks": TASKS}))
        made = await mlops("pipeline", "schedule", "nightly", "--cron", "30 2 * * *", "-o", "json")
        assert made.json["is_paused"] is False
        assert (await mlops("pipeline", "schedule", "nightly", "--pause", "-o", "json")).json["is_paused"] is True
        assert (await mlops("pipeline", "schedule", "nightly", "--pause", "--resume")).code == 2

    async def test_waiting_has_an_end(self, mlops):
        await mlops("pipeline", "create", "-", given=json.dumps({"name": "nightly", "tasks": TASKS}))
        outcome = await mlops("pipeline", "run", "nightly", "--wait", "--timeout", "0")
        assert outcome.code == 1
        assert "after 0 s" in outcome.err


class TestABTests:
    async def test_a_test_runs_from_its_making_to_its_end(self, mlops):
        variants = ("--variant", "control:0.5:v1.0", "--variant", "treatment:0.5:shop/v2@champion")
        assert (await mlops("ab", "create", "v2", *variants, "--metric", "converted", "-q")).out == "v2\n"
        version = (await mlops("ab", "route", "v2", "ada", "-q")).out.strip()
        assert version in {"v1.0", "shop/v2@champion"}
        assert (await mlops("ab", "outcome", "v2", "ada", "converted", "true", "-q")).out == "1\n"
        results = await mlops("ab", "results", "v2")
        assert "treatment" in results.out
        assert (await mlops("ab", "stop", "v2", "--winner", "treatment", "-q")).out == "stopped\n"

    async def test_an_outcome_that_is_no_value_is_wrong_usage(self, mlops):
        assert (await mlops("ab", "outcome", "v2", "ada", "converted", "maybe")).code == 2


class TestModelFiles:
    async def test_a_file_goes_up_with_its_version_and_comes_down(self, mlops, tmp_path):
        (tmp_path / "model.bin").write_bytes(b"weights")
        made = await mlops("model", "create", "m", "--file", str(tmp_path / "model.bin"), "--finalize", "-o", "json")
        assert made.json["status"] == "ready"
        await mlops("model", "alias", "m", "champion", made.json["version"])
        assert (await mlops("model", "download", "m", "@champion", "--to", str(tmp_path / "down"))).code == 0
        assert (tmp_path / "down" / "model.bin").read_bytes() == b"weights"
