"""What `kubectl kustomize cluster/example` emits, held against models, rules, the README's secrets, our commands.

Faked is `gapwise` where a tick's shell line is run for its exit code. Nothing here runs on
Kubernetes: that a cluster and KubeRay accept these objects is not shown. Each model and each rule is shown to refuse
something: a value is spoiled, and the complaint has to come.
"""

import os
import re
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer
from pydantic import ValidationError

from gapwise.cli.main import app

ROOT = Path(__file__).parents[2]
Objects = list[dict[str, Any]]


def one(objects: Objects, kind: str, name: str | None = None) -> dict[str, Any]:
    (found,) = (each for each in objects if each["kind"] == kind and name in (None, each["metadata"]["name"]))
    return found


def head(objects: Objects) -> dict[str, Any]:
    return one(objects, "RayCluster")["spec"]["headGroupSpec"]


def gpu_group(objects: Objects) -> dict[str, Any]:
    (group,) = (each for each in one(objects, "RayCluster")["spec"]["workerGroupSpecs"] if each["groupName"] == "gpu")
    return group


def container(group: dict[str, Any]) -> dict[str, Any]:
    return group["template"]["spec"]["containers"][0]


def tick(objects: Objects) -> dict[str, Any]:
    return container(one(objects, "CronJob")["spec"]["jobTemplate"]["spec"])


def test_every_object_is_exactly_one_of_ours(objects, schemas):
    for each in objects:
        schemas.validate(each)


def test_every_kind_of_object_that_there_is_a_model_for_is_emitted(objects, schemas):
    kinds = {each["kind"] for each in objects}

    assert kinds == {model.__name__ for model in schemas.Object.__subclasses__()}


SPOILED: dict[str, Callable[[Objects], Any]] = {
    "an unknown field of a container": lambda o: tick(o).update(imagePulPolicy="Always"),
    "an unknown field of the Ray cluster": lambda o: one(o, "RayCluster")["spec"].update(autoScaler=True),
    "no token for the Jobs API": lambda o: one(o, "RayCluster")["spec"]["authOptions"].update(mode="disabled"),
    "no auth options": lambda o: one(o, "RayCluster")["spec"].pop("authOptions"),
    "the first autoscaler": lambda o: one(o, "RayCluster")["spec"]["autoscalerOptions"].update(version="v1"),
    "trials on the head": lambda o: head(o)["rayStartParams"].update({"num-cpus": "4"}),
    "a number of cores that is no string": lambda o: head(o)["rayStartParams"].update({"num-cpus": 0}),
    "a public head service": lambda o: head(o).update(serviceType="LoadBalancer"),
    "fewer workers than the least": lambda o: gpu_group(o).update(minReplicas=3, replicas=1),
    "a GPU as a number": lambda o: container(gpu_group(o))["resources"]["limits"].update({"nvidia.com/gpu": 1}),
    "memory that may grow": lambda o: container(head(o))["resources"]["limits"].update(memory="64Gi"),
    "ticks side by side": lambda o: one(o, "CronJob")["spec"].update(concurrencyPolicy="Allow"),
    "ticks without a deadline": lambda o: one(o, "CronJob")["spec"].pop("startingDeadlineSeconds"),
    "a cron expression of four fields": lambda o: one(o, "CronJob")["spec"].update(schedule="7 * * *"),
    "an image without a tag": lambda o: tick(o).update(image="registry.example.org/gapwise"),
    "a privileged container": lambda o: tick(o)["securityContext"].update(privileged=True),
    "a container that keeps capabilities": lambda o: tick(o)["securityContext"].update(capabilities={"add": ["ALL"]}),
    "root": lambda o: one(o, "Deployment")["spec"]["template"]["spec"]["securityContext"].update(runAsUser=0),
    "the host's network": lambda o: one(o, "Deployment")["spec"]["template"]["spec"].update(hostNetwork=True),
    "a token for the Kubernetes API": lambda o: one(o, "ServiceAccount", "mlflow").update(
        automountServiceAccountToken=True
    ),
    "a service on every node": lambda o: one(o, "Service", "mlflow")["spec"].update(type="NodePort"),
    "a policy for everybody": lambda o: one(o, "NetworkPolicy", "mlflow")["spec"]["ingress"].append({"from": [{}]}),
    "ingress from anywhere": lambda o: one(o, "NetworkPolicy", "mlflow")["spec"]["ingress"][0].pop("from"),
    "egress to anywhere": lambda o: one(o, "NetworkPolicy", "mlflow")["spec"]["egress"].append({}),
    "rules that policyTypes does not name": lambda o: one(o, "NetworkPolicy", "ray")["spec"].update(
        policyTypes=["Ingress"]
    ),
    "a volume that nobody mounts": lambda o: tick(o)["volumeMounts"].clear(),
    "a variable with a value and a reference": lambda o: container(head(o))["env"][1].update(value="x"),
    "two ways of probing": lambda o: one(o, "StatefulSet")["spec"]["template"]["spec"]["containers"][0][
        "livenessProbe"
    ].update(httpGet={"path": "/health", "port": "http"}),
    "a budget for every pod": lambda o: one(o, "PodDisruptionBudget")["spec"].update(selector={}),
    "retries beside a clusterSelector": lambda o: one(o, "RayJob")["spec"].update(backoffLimit=2),
    "a study without a cluster": lambda o: one(o, "RayJob")["spec"].update(clusterSelector={}),
    "a name with a capital": lambda o: one(o, "RayJob")["metadata"].update(name="Study"),
    "no namespace": lambda o: one(o, "RayJob")["metadata"].pop("namespace"),
    "a storage class left out": lambda o: one(o, "PersistentVolumeClaim")["spec"].pop("storageClassName"),
    "settings that are no strings": lambda o: one(o, "ConfigMap", "gapwise-env")["data"].update(
        RAY_USAGE_STATS_ENABLED=0
    ),
    "an old API": lambda o: one(o, "RayJob").update(apiVersion="ray.io/v1alpha1"),
    "a kind that nobody thought about": lambda o: one(o, "RayJob").update(kind="RayCronJob"),
    "a monitor without an interval": lambda o: one(o, "PodMonitor")["spec"]["podMetricsEndpoints"][0].pop("interval"),
}


@pytest.mark.parametrize("spoil", SPOILED.values(), ids=SPOILED)
def test_the_models_refuse(spoil, objects, schemas):
    spoil(objects)

    with pytest.raises(ValidationError):
        for each in objects:
            schemas.validate(each)


def test_no_rule_is_broken(objects, rules):
    assert {rule.__name__: rule(objects) for rule in rules.RULES} == {rule.__name__: [] for rule in rules.RULES}


def add_policy(objects: Objects, name: str, component: str, port: int, peer: dict[str, Any]) -> None:
    spec = {
        "podSelector": {"matchLabels": {"app.kubernetes.io/component": component}},
        "policyTypes": ["Ingress"],
        "ingress": [{"from": [peer], "ports": [{"protocol": "TCP", "port": port}]}],
    }
    objects.append({"kind": "NetworkPolicy", "metadata": {"name": name}, "spec": spec})


MLFLOW_POD = {"podSelector": {"matchLabels": {"app.kubernetes.io/component": "mlflow"}}}
JOB_POD = {"podSelector": {"matchLabels": {"app.kubernetes.io/component": "gapwise-job"}}}
ELSEWHERE = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "web"}}}
BROKEN: list[tuple[str, str, Callable[[Objects], Any]]] = [
    (
        "every_selector_finds_a_pod",
        "a service for pods of another name",
        lambda o: one(o, "Service", "mlflow")["spec"]["selector"].update({"app.kubernetes.io/component": "mlfow"}),
    ),
    (
        "every_selector_finds_a_pod",
        "a policy that lets nobody in",
        lambda o: add_policy(o, "typo", "mlflow", 5000, {"podSelector": {"matchLabels": {"app": "ray"}}}),
    ),
    (
        "owners_select_their_own_pods",
        "a deployment of somebody else's pods",
        lambda o: one(o, "Deployment")["spec"]["template"]["metadata"]["labels"].clear(),
    ),
    (
        "images_have_tags_that_do_not_move",
        "latest",
        lambda o: tick(o).update(image="registry.example.org/gapwise:latest"),
    ),
    (
        "images_have_tags_that_do_not_move",
        "a registry's port is no tag",
        lambda o: tick(o).update(image="registry.example.org:5000/gapwise"),
    ),
    (
        "ray_runs_one_image",
        "ticks of another version",
        lambda o: tick(o).update(image="registry.example.org/gapwise:0.0.9"),
    ),
    (
        "gpus_are_requested_as_limited",
        "a GPU by limit alone",
        lambda o: container(gpu_group(o))["resources"]["requests"].pop("nvidia.com/gpu"),
    ),
    (
        "gpus_are_requested_as_limited",
        "a GPU node that keeps the pod away",
        lambda o: gpu_group(o)["template"]["spec"].pop("tolerations"),
    ),
    ("somebody_has_a_gpu", "no GPU at all", lambda o: one(o, "RayCluster")["spec"]["workerGroupSpecs"].pop()),
    (
        "nothing_is_exposed",
        "a load balancer",
        lambda o: one(o, "Service", "mlflow")["spec"].update(type="LoadBalancer"),
    ),
    ("nothing_is_exposed", "an ingress", lambda o: o.append({"kind": "Ingress", "metadata": {"name": "dashboard"}})),
    ("nothing_is_exposed", "KubeRay's ingress", lambda o: head(o).update(enableIngress=True)),
    ("nothing_is_exposed", "the host's network", lambda o: head(o)["template"]["spec"].update(hostNetwork=True)),
    ("everything_is_denied_first", "no default", lambda o: o.remove(one(o, "NetworkPolicy", "default-deny"))),
    (
        "the_jobs_api_is_for_jobs",
        "MLflow at the dashboard",
        lambda o: add_policy(o, "open", "ray-head", 8265, MLFLOW_POD),
    ),
    (
        "the_jobs_api_is_for_jobs",
        "strangers at the dashboard",
        lambda o: add_policy(o, "open", "ray-head", 8265, ELSEWHERE),
    ),
    (
        "postgres_is_for_mlflow_and_studies",
        "ticks at the database",
        lambda o: add_policy(o, "open", "postgres", 5432, JOB_POD),
    ),
    ("postgres_is_for_mlflow_and_studies", "no guard", lambda o: o.remove(one(o, "NetworkPolicy", "postgres"))),
    (
        "open_ports_are_listened_on",
        "a port that nobody has",
        lambda o: add_policy(o, "typo", "mlflow", 5001, JOB_POD),
    ),
    (
        "open_ports_are_listened_on",
        "a service's port by a wrong name",
        lambda o: one(o, "Service", "mlflow")["spec"]["ports"][0].update(targetPort="https"),
    ),
    (
        "open_ports_are_listened_on",
        "a monitor's port by a wrong name",
        lambda o: one(o, "PodMonitor")["spec"]["podMetricsEndpoints"][0].update(port="metric"),
    ),
    (
        "what_is_referred_to_exists",
        "an account that is not made",
        lambda o: o.remove(one(o, "ServiceAccount", "mlflow")),
    ),
    ("what_is_referred_to_exists", "a claim that is not made", lambda o: o.remove(one(o, "PersistentVolumeClaim"))),
    (
        "what_is_referred_to_exists",
        "settings that are not made",
        lambda o: o.remove(one(o, "ConfigMap", "gapwise-env")),
    ),
    (
        "jobs_select_a_cluster_that_exists",
        "another cluster",
        lambda o: one(o, "RayJob")["spec"]["clusterSelector"].update({"ray.io/cluster": "gapwis"}),
    ),
    (
        "ticks_call_the_head_of_a_cluster_that_exists",
        "another cluster",
        lambda o: one(o, "RayCluster")["metadata"].update(name="other"),
    ),
    (
        "ticks_call_the_head_of_a_cluster_that_exists",
        "no token",
        lambda o: next(each for each in tick(o)["env"] if each["name"] == "RAY_AUTH_MODE").update(value="disabled"),
    ),
    (
        "home_is_the_same_storage_everywhere",
        "a disk of the node",
        lambda o: gpu_group(o)["template"]["spec"].update(volumes=[{"name": "home", "emptyDir": {}}]),
    ),
    (
        "home_is_the_same_storage_everywhere",
        "a disk that one node may mount",
        lambda o: one(o, "PersistentVolumeClaim")["spec"].update(accessModes=["ReadWriteOnce"]),
    ),
    (
        "nobody_reports_home",
        "Ray's statistics",
        lambda o: one(o, "ConfigMap", "gapwise-env")["data"].pop("RAY_USAGE_STATS_ENABLED"),
    ),
    (
        "stateful_mounts_have_volumes",
        "no claim",
        lambda o: one(o, "StatefulSet")["spec"].update(volumeClaimTemplates=[]),
    ),
]


@pytest.mark.parametrize(("rule", "spoil"), [(a, c) for a, _, c in BROKEN], ids=[f"{a}: {b}" for a, b, _ in BROKEN])
def test_the_rules_complain(rule, spoil, objects, rules):
    spoil(objects)

    assert getattr(rules, rule)(objects) != []


def test_every_rule_is_shown_to_complain(rules):
    assert {rule.__name__ for rule in rules.RULES} == {name for name, _, _ in BROKEN}


def secrets_of(readme: str) -> set[tuple[str, str]]:
    """(name, key) of every secret that the README's commands create."""
    joined = readme.replace("\\\n", " ")
    commands = re.findall(r"create secret generic (\S+)([^\n]*)", joined)
    return {(name, key) for name, rest in commands for key in re.findall(r"--from-\w+=([\w-]+)=", rest)}


def test_the_readme_creates_the_secrets_that_are_referred_to_and_kuberay_makes_the_token(objects, rules, cluster):
    asked = {(name, key) for kind, name, key in rules.asked_for(objects) if kind == "Secret"}
    made_by_kuberay = {(one(objects, "RayCluster")["metadata"]["name"], "auth_token")}

    created = secrets_of((cluster / "README.md").read_text(encoding="utf-8"))

    assert asked - made_by_kuberay == {(name, key) for name, key in created if name != "artifact-store"}
    assert made_by_kuberay <= asked


def test_a_missing_command_of_the_readme_would_be_seen():
    assert secrets_of("kubectl -n x create secret generic a \\\n  --from-literal=b-c=1 --from-file=d=e\n") == {
        ("a", "b-c"),
        ("a", "d"),
    }


def ray_of_the_constraints() -> str:
    found = re.search(r"^ray==(.+)$", (ROOT / "constraints.txt").read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert found is not None
    return found[1]


def test_the_ray_version_is_that_of_the_constraints_which_the_image_installs(objects):
    assert one(objects, "RayCluster")["spec"]["rayVersion"] == ray_of_the_constraints()


def resolved(container: dict[str, Any]) -> list[str]:
    """The command as the kubelet runs it."""
    values = {each["name"]: each.get("value", "") for each in container["env"]}
    words = [*container["command"], *container.get("args", [])]
    return [re.sub(r"\$\((\w+)\)", lambda found: values[found[1]], word) for word in words]


def refused(words: list[str]) -> str:
    """Why our command line would not take these words; empty where it does."""
    if words[0] != "gapwise":
        return f"not a command of ours: {words[0]}"
    if words[1:3] == ["submit", "--"]:
        return refused(["gapwise", *words[3:]])
    command: Any = typer.main.get_command(app)
    rest = words[1:]
    while rest and hasattr(command, "commands"):
        if rest[0] not in command.commands:
            return f"no command {rest[0]}"
        command, rest = command.commands[rest[0]], rest[1:]
    try:
        command.make_context(command.name, rest)
    except Exception as error:  # noqa: BLE001 - typer's own copy of click raises
        return str(getattr(error, "message", None) or error)
    return ""


def test_the_tick_s_command_is_one_of_ours(objects):
    shell, option, line = resolved(tick(objects))
    (schedule,) = (each["value"] for each in tick(objects)["env"] if each["name"] == "SCHEDULE")

    words = shlex.split(line.split(" || ")[0].replace("$SCHEDULE", schedule))

    assert (shell, option) == ("sh", "-c")
    assert words == ["gapwise", "submit", "--", "retrain", "tick", "/gapwise/schedules/weekly.yaml"]
    assert refused(words) == ""


@pytest.mark.parametrize(("code", "seen"), [(0, 0), (3, 0), (1, 1), (2, 1)])
def test_a_tick_that_trained_and_was_held_is_not_tried_again(code, seen, objects, tmp_path):
    (tmp_path / "gapwise").write_text(f"#!/bin/sh\nexit {code}\n", encoding="utf-8")
    (tmp_path / "gapwise").chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"

    done = subprocess.run(resolved(tick(objects)), env={"PATH": path, "SCHEDULE": "a b.yaml"}, check=False)

    assert done.returncode == seen


def test_the_study_s_command_is_one_of_ours_and_its_search_space_is_in_the_image(objects):
    words = shlex.split(one(objects, "RayJob")["spec"]["entrypoint"])

    assert refused(words) == ""
    space = Path(words[2])
    assert space.parent == Path("/opt/gapwise/search_spaces")
    assert (ROOT / "search_spaces" / space.name).is_file()


@pytest.mark.parametrize(
    "words",
    ["gapwise tun a.yaml", "gapwise tune", "gapwise tune a.yaml --trails 3", "gapwise registry forget a", "ray up"],
)
def test_a_command_that_does_not_exist_would_be_seen(words):
    assert refused(words.split()) != ""
    assert refused(["gapwise", "submit", "--", *words.split()[1:]]) != ""


def test_the_example_starts_no_study_until_somebody_says_so(cluster):
    listed = (cluster / "example" / "kustomization.yaml").read_text(encoding="utf-8")

    assert re.search(r"^\s*#\s*- \.\./components/study\b", listed, flags=re.MULTILINE)
    assert not re.search(r"^\s*- \.\./components/study\b", listed, flags=re.MULTILINE)


def test_every_value_is_documented_and_used(cluster):
    lines = (cluster / "example" / "values.env").read_text(encoding="utf-8").splitlines()
    keys = {line.split("=")[0] for line in lines if line and not line.startswith("#")}
    blocks = "\n".join(lines).split("\n\n")
    used = set(
        re.findall(r"data\.([A-Z_]+)", (cluster / "components/values/kustomization.yaml").read_text(encoding="utf-8"))
    )

    assert keys == used
    assert [block for block in blocks if not block.startswith("#")] == []


def test_no_placeholder_is_left(objects):
    assert "placeholder" not in str(objects)


def test_what_a_team_sets_arrives(objects):
    assert one(objects, "Deployment")["spec"]["template"]["spec"]["containers"][0]["env"][0] == {
        "name": "ARTIFACTS",
        "value": "s3://example-bucket/gapwise",
    }
    assert gpu_group(objects)["template"]["spec"]["nodeSelector"] == {"nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3"}
    assert {each["metadata"]["namespace"] for each in objects} == {"gapwise"}


def mlflow_refuses(words: list[str]) -> str:
    """Why MLflow's own command line would not take these words; empty where it does."""
    from mlflow.cli import cli

    command: Any = cli
    rest = words[1:]
    while rest and hasattr(command, "commands"):
        if rest[0] not in command.commands:
            return f"no command {rest[0]}"
        command, rest = command.commands[rest[0]], rest[1:]
    try:
        command.make_context(command.name, rest)
    except Exception as error:  # noqa: BLE001 - click's, of several kinds
        return str(error) or type(error).__name__
    return ""


def mlflow_commands(objects: Objects) -> list[list[str]]:
    pod = one(objects, "Deployment")["spec"]["template"]["spec"]
    words = [resolved(each) for each in (*pod["initContainers"], *pod["containers"])]
    return [each for each in words if each[0] == "mlflow"]


def test_mlflow_takes_its_commands(objects):
    migrate, server = mlflow_commands(objects)

    assert migrate == ["mlflow", "db", "upgrade", "postgresql+psycopg://mlflow@postgres:5432/mlflow"]
    assert "--artifacts-destination=s3://example-bucket/gapwise" in server
    assert [mlflow_refuses(words) for words in (migrate, server)] == ["", ""]


def test_an_option_that_mlflow_does_not_have_would_be_seen(objects):
    _, server = mlflow_commands(objects)

    assert mlflow_refuses([*server, "--allow-hosts=mlflow"]) != ""
    assert mlflow_refuses(["mlflow", "serve"]) != ""
