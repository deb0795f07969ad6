"""The card of an exported model, read as the Hub reads it; and pushes to a server that answers as the Hub does."""

from __future__ import annotations

import base64
import json
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard, constants

from empg_cli.integrations import hub as hub_module
from empg_cli.integrations.model_card import model_card
from tests.e2e.conftest import SMALL, Empg, invoke
from tests.support.server import FakeServer, Reply, Request

KEY = "hf_abcdefghijklmnopqrstuvwxyz012345"


class Hub:
    """Repositories, and the files committed to them."""

    def __init__(self) -> None:
        self.repos: dict[str, bool] = {}
        """Name -> private."""
        self.files: dict[str, bytes] = {}
        self.refuse = False
        self.silent_s = 0.0
        self.server = FakeServer(self.answer)

    def answer(self, request: Request) -> Reply:
        if self.refuse or request.headers.get("authorization") != f"Bearer {KEY}":
            return Reply({"error": f"Invalid credentials {KEY}"}, 401)
        path = request.path
        time.sleep(self.silent_s)
        if path == "/api/whoami-v2":
            return Reply({"name": "me", "type": "user"})
        if "/tree/" in path:
            return Reply([{"type": "file", "path": name, "size": 1, "oid": "0"} for name in self.files])
        if path == "/api/repos/create":
            name = f"{request.json['organization']}/{request.json['name']}"
            if name in self.repos:
                return Reply({"error": "You already created this model repo", "url": self.url(name)}, 409)
            asked = request.json
            self.repos[name] = asked.get("private", asked.get("visibility") == "private")
            return Reply({"url": self.url(name)})
        if path.startswith("/api/models/") and path.count("/") == 4 and request.method == "GET":
            name = path.removeprefix("/api/models/")
            return Reply({"_id": "1", "id": name, "private": self.repos[name], "sha": "0" * 40, "siblings": []})
        if "/preupload/" in path:
            asked_files = [file["path"] for file in request.json["files"]]
            return Reply({"files": [{"path": f, "uploadMode": "regular", "shouldIgnore": False} for f in asked_files]})
        if "/commit/" in path:
            for line in map(json.loads, request.body.splitlines()):
                if line["key"] == "file":
                    self.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
                if line["key"] == "deletedFile":
                    del self.files[line["value"]["path"]]
            name = "/".join(path.split("/")[3:5])
            return Reply({"commitUrl": f"{self.url(name)}/commit/{'1' * 40}", "commitOid": "1" * 40, "success": True})
        if "/resolve/" in path or "/revision/" in path:
            return Reply({"error": "none"}, 404, {"X-Error-Code": "EntryNotFound"})
        if path == "/api/validate-yaml":
            return Reply({"errors": [], "warnings": []})
        raise AssertionError(f"asked for {request.method} {path}")

    def url(self, name: str) -> str:
        return f"{self.server.url}/{name}"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    made = Hub()
    monkeypatch.setenv("HF_ENDPOINT", made.server.url)
    monkeypatch.setenv("HF_TOKEN", KEY)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)  # no other address than this server's is asked
    yield made
    made.server.close()


@pytest.fixture(scope="module")
def run_at_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one command; that of `finished_run` may have been asked to go on."""
    folder = tmp_path_factory.mktemp("at-once") / "run"
    invoke("train", *SMALL, f"run_dir={folder}")
    return folder


def test_the_card_of_a_run_that_went_on_does_not_make_up_its_command(empg: Empg, run_at_once: Path) -> None:
    shutil.copytree(run_at_once, "run")
    empg("train", "--resume", "run", "trainer.updates=3")
    text = model_card(Path("run"), Path("run/checkpoints/step-000003"))
    assert "empg train  # the run folder does not say with which words" in text
    assert "empg train trainer.updates=3" not in text


def test_the_card_says_what_the_run_folder_says(empg: Empg, run_at_once: Path) -> None:
    empg("export", "--to", "hf", f"run={run_at_once}", "out=FOLDER")
    card = ModelCard.load("FOLDER/README.md")
    facts = json.loads((run_at_once / "run.json").read_text())
    evaluation = json.loads((run_at_once / "evaluations" / "update-000002.json").read_text())
    total = evaluation["total"]
    assert card.data.license == "apache-2.0" and card.data.library_name == "transformers"
    assert card.data.base_model is None  # it began at random
    assert {"empg", "alfworld"} <= set(card.data.tags)
    (result,) = card.data.eval_results
    assert result.dataset_name == "alfworld (generated data)" and result.metric_type == "success_rate"
    assert result.metric_value == round(total["success_rate"], 4)
    text = card.text
    interval = f"**{total['success_rate']:.1%}** [{total['lo']:.1%}, {total['hi']:.1%}] | {total['n']} |"
    assert f"| after 2 updates | {interval}" in text
    assert "[EMPG](https://arxiv.org/abs/2509.09265)" in text and "[GRPO](https://arxiv.org/abs/2402.03300)" in text
    for fact in (facts["config_hash"], facts["data"]["digest"], facts["versions"]["torch"], "experiment=smoke"):
        assert fact in text
    assert "which is not the official benchmark" in text and "One run with one seed" in text
    assert str(run_at_once) not in text and "…/run" in text  # folders of this machine stay here


def test_the_card_of_a_model_with_a_base(finished_run: Path, tmp_path: Path) -> None:
    shutil.copytree(finished_run, tmp_path / "run")
    run = tmp_path / "run"
    facts = json.loads((run / "run.json").read_text())
    config = (run / "config.yaml").read_text()
    (run / "run.json").write_text(
        json.dumps({k: v for k, v in facts.items() if k not in ("checksum", "config_digests")})
    )
    (run / "config.yaml").write_text(
        config.replace("init: scratch\n  path: null", "init: pretrained\n  path: Qwen/Qwen2.5-0.5B-Instruct").replace(
            "prompt: compact", "prompt: chat"
        )
    )
    card = ModelCard(model_card(run, run / "checkpoints" / "step-000001"))
    assert card.data.base_model == "Qwen/Qwen2.5-0.5B-Instruct" and card.data.license == "other"
    assert "was not looked up" in card.text and "was not evaluated by its run" in card.text
    base = tmp_path / "base"
    base.mkdir()
    (base / "README.md").write_text("---\nlicense: mit\n---\n# Base\n")
    (run / "config.yaml").write_text((run / "config.yaml").read_text().replace("Qwen/Qwen2.5-0.5B-Instruct", str(base)))
    card = ModelCard(model_card(run, run / "checkpoints" / "step-000001"))
    assert card.data.license == "mit" and card.data.base_model is None
    assert "a local folder, `base`" in card.text and str(base) not in card.text


def with_facts(run: Path, **facts: Any) -> None:
    """As if the run had other facts, without the digests that would vouch for others."""
    found = json.loads((run / "run.json").read_text()) | facts
    (run / "run.json").write_text(
        json.dumps({k: v for k, v in found.items() if k not in ("checksum", "config_digests")})
    )


def test_a_folder_of_the_machine_that_trained_is_no_repository_of_the_hub(run_at_once: Path, tmp_path: Path) -> None:
    """Also where it has the form of an id, and the card is made elsewhere."""
    run = shutil.copytree(run_at_once, tmp_path / "run")
    assert json.loads((run / "run.json").read_text())["model_from"] is None
    config = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(
        config.replace("init: scratch\n  path: null", "init: pretrained\n  path: models/qwen").replace(
            "prompt: compact", "prompt: chat"
        )
    )
    with_facts(run, model_from="folder")
    card = ModelCard(model_card(run, run / "checkpoints" / "step-000001"))
    assert card.data.base_model is None and "a local folder, `qwen`" in card.text
    with_facts(run, model_from="hub")
    assert ModelCard(model_card(run, run / "checkpoints" / "step-000001")).data.base_model == "models/qwen"


def test_neither_folders_nor_secrets_are_in_the_card(
    run_at_once: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = shutil.copytree(run_at_once, tmp_path / "run")
    words = yaml.safe_load((run / ".hydra/overrides.yaml").read_text())
    words += ["logger.mlflow.uri=sqlite:////home/alice/mlflow.db", "benchmark.data_dir='/home/alice/my games'"]
    (run / ".hydra/overrides.yaml").write_text(yaml.safe_dump([*words, "logger.wandb.notes=with s3same-1"]))
    config = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(
        config.replace("uri: null", "uri: sqlite:////home/alice/mlflow.db").replace(
            "notes: null", "notes: with s3same-1"
        )
    )
    with_facts(run)
    monkeypatch.setenv("SERVER_PASSWORD", "s3same-1")
    text = model_card(run, run / "checkpoints" / "step-000001")
    assert "alice" not in text and "s3same" not in text
    assert "sqlite:…/mlflow.db" in text and "notes=with ***'" in text


def test_a_damaged_evaluation_is_one_message(empg: Empg, run_at_once: Path, tmp_path: Path) -> None:
    run = shutil.copytree(run_at_once, tmp_path / "run")
    file = run / "evaluations/update-000002.json"
    file.write_text(file.read_text().replace('"temperature"', '"temprature"'))
    refused = empg("export", f"run={run}", "out=FOLDER", code=2)
    assert "update-000002.json" in refused.stderr and "temperature" in refused.stderr
    assert not Path("FOLDER").exists()


def test_a_push_brings_the_folder_and_keeps_it_private(empg: Empg, finished_run: Path, hub: Hub) -> None:
    shown = empg("export", f"run={finished_run}", "out=FOLDER", "hub=me/agent")
    assert hub.repos == {"me/agent": True}
    assert hub.files == {path.name: path.read_bytes() for path in Path("FOLDER").iterdir()}
    assert re.search(rf"{hub.url('me/agent')}/commit/1+ \(private\)\n", shown.stdout)
    assert hub.files["README.md"].decode().splitlines().count("# agent") == 1
    for path in (path for path in Path().rglob("*") if path.is_file()):
        assert KEY.encode() not in path.read_bytes()


def test_without_out_nothing_stays_here(empg: Empg, finished_run: Path, hub: Hub) -> None:
    empg("export", f"run={finished_run}", "hub=me/agent", "private=false")
    assert hub.repos == {"me/agent": False} and "model.safetensors" in hub.files
    assert not list(Path().iterdir())


def test_a_public_repository_is_no_place_for_what_was_to_be_private(empg: Empg, finished_run: Path, hub: Hub) -> None:
    hub.repos["me/agent"] = False
    refused = empg("export", f"run={finished_run}", "hub=me/agent", code=2)
    assert "me/agent is there already and public: add private=false" in refused.stderr
    assert not hub.files
    empg("export", f"run={finished_run}", "hub=me/agent", "private=false")
    assert "README.md" in hub.files


def test_weights_of_an_earlier_push_go_and_other_files_stay(empg: Empg, finished_run: Path, hub: Hub) -> None:
    hub.repos["me/agent"] = True
    earlier = ("model-00001-of-00002.safetensors", "model.safetensors.index.json", "adapter_config.json")
    hub.files = dict.fromkeys((*earlier, "adapter_model.safetensors", "LICENSE", "onnx/model.safetensors"), b"x")
    shown = empg("export", f"run={finished_run}", "out=FOLDER", "hub=me/agent", "private=false")
    assert hub.files.keys() == {path.name for path in Path("FOLDER").iterdir()} | {"LICENSE", "onnx/model.safetensors"}
    assert "(private)" in shown.stdout  # it was, and stays so


def test_a_hub_that_is_gone_or_silent_is_said_before_any_work(
    empg: Empg, finished_run: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_module, "PROBE_S", 0.2)
    hub.silent_s = 2
    refused = empg("export", f"run={finished_run}", "out=FOLDER", "hub=me/agent", code=2)
    assert "the Hub could not be asked: " in refused.stderr and "timed out" in refused.stderr
    hub.server.close()
    refused = empg("export", f"run={finished_run}", "out=FOLDER", "hub=me/agent", code=2)
    assert "the Hub could not be asked: " in refused.stderr and "Traceback" not in refused.stderr
    assert not Path("FOLDER").exists()


def test_a_hub_that_goes_while_it_takes_the_files(
    empg: Empg, finished_run: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_module, "probe", hub.server.close)
    refused = empg("export", f"run={finished_run}", "hub=me/agent", code=2)
    assert "me/agent could not be pushed: " in refused.stderr and "Traceback" not in refused.stderr


def test_a_dry_run_asks_nobody(empg: Empg, finished_run: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_TOKEN")
    shown = empg("export", f"run={finished_run}", "hub=me/agent", "--dry-run").stdout
    assert "would push to me/agent (private)" in shown and "model.safetensors" in shown and "# agent" in shown
    assert not hub.server.requests and not list(Path().iterdir())


def test_a_token_that_is_missing_or_refused(
    empg: Empg, finished_run: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.refuse = True
    refused = empg("export", f"run={finished_run}", "hub=me/agent", code=2)
    assert "the Hub could not be asked" in refused.stderr
    assert "401" in refused.stderr or "Invalid user token" in refused.stderr  # huggingface_hub says one or the other
    assert KEY not in refused.stderr + refused.stdout and "Traceback" not in refused.stderr
    monkeypatch.delenv("HF_TOKEN")
    assert "environment variable HF_TOKEN" in empg("export", f"run={finished_run}", "hub=me/agent", code=2).stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["hub=agent"], "give owner/name"),
        (["out=new", "private=false"], "private: is read with hub=owner/name only"),
        (["out=new", "--dry-run"], "shows what hub=owner/name would push"),
        (["out=new", "--to", "gguf"], "'gguf' is not"),
        ([f"hub=me/{KEY}"], "holds what looks like a key"),
    ],
)
def test_wrong_words_are_one_message(empg: Empg, finished_run: Path, words: list[str], said: str) -> None:
    refused = empg("export", f"run={finished_run}", *words, code=2)
    assert said in " ".join(refused.stderr.split()) and not list(Path().iterdir())
