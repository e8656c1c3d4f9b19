"""What the objects of `cluster/` have to be together, as functions from objects to complaints. Nothing is faked.

`schemas.py` looks at one object; here stand names that must meet (claims, accounts, labels, ports) and what must never
be reachable. A rule that finds nothing answers with an empty list.
"""

import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

Objects = list[dict[str, Any]]
Rule = Callable[[Objects], list[str]]
GPU = "nvidia.com/gpu"
JOBS_API = 8265
RAY = {"ray-head", "ray-worker"}
COMPONENT = "app.kubernetes.io/component"


class Pod(NamedTuple):
    """A pod template, and who makes pods of it."""

    owner: str
    labels: dict[str, str]
    spec: dict[str, Any]

    @property
    def containers(self) -> list[dict[str, Any]]:
        return [*self.spec.get("initContainers", []), *self.spec["containers"]]

    @property
    def ports(self) -> dict[str, int]:
        return {port["name"]: port["containerPort"] for one in self.containers for port in one.get("ports", [])}


def of_kind(objects: Objects, kind: str) -> Objects:
    return [one for one in objects if one["kind"] == kind]


def templates(one: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The pod templates of an object."""
    spec = one.get("spec", {})
    if one["kind"] in ("Deployment", "StatefulSet"):
        yield spec["template"]
    elif one["kind"] == "CronJob":
        yield spec["jobTemplate"]["spec"]["template"]
    elif one["kind"] == "RayJob":
        yield spec["submitterPodTemplate"]
    elif one["kind"] == "RayCluster":
        yield from (group["template"] for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"]))


def pods(objects: Objects) -> list[Pod]:
    return [
        Pod(f"{one['kind']} {one['metadata']['name']}", template["metadata"]["labels"], template["spec"])
        for one in objects
        for template in templates(one)
    ]


def selects(selector: dict[str, Any], labels: dict[str, str]) -> bool:
    wanted = selector.get("matchLabels", {}).items()
    among = selector.get("matchExpressions", [])
    return all(labels.get(key) == value for key, value in wanted) and all(
        labels.get(one["key"]) in one["values"] for one in among
    )


def selectors(objects: Objects) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every selector of pods in this namespace, with its place."""
    for one in objects:
        where, spec = f"{one['kind']} {one['metadata']['name']}", one.get("spec", {})
        if one["kind"] == "Service":
            yield where, {"matchLabels": spec["selector"]}
        elif one["kind"] == "NetworkPolicy":
            yield where, spec["podSelector"]
            for rule in (*spec.get("ingress", []), *spec.get("egress", [])):
                for peer in (*rule.get("from", []), *rule.get("to", [])):
                    if "namespaceSelector" not in peer:
                        yield where, peer["podSelector"]
        elif "selector" in spec:
            yield where, spec["selector"]


def every_selector_finds_a_pod(objects: Objects) -> list[str]:
    """A policy or a service for nobody protects or serves nobody, silently."""
    labels = [pod.labels for pod in pods(objects)]
    return [
        f"{where}: {selector}"
        for where, selector in selectors(objects)
        if not any(selects(selector, x) for x in labels)
    ]


def owners_select_their_own_pods(objects: Objects) -> list[str]:
    return [
        f"{one['kind']} {one['metadata']['name']}"
        for one in objects
        if one["kind"] in ("Deployment", "StatefulSet")
        for template in templates(one)
        if not selects(one["spec"]["selector"], template["metadata"]["labels"])
    ]


def images_have_tags_that_do_not_move(objects: Objects) -> list[str]:
    images = [one["image"] for pod in pods(objects) for one in pod.containers]
    return [image for image in images if ":" not in image.split("/")[-1] or image.endswith(":latest")]


def ray_runs_one_image(objects: Objects) -> list[str]:
    """Head, workers, ticks, submitted jobs: another version of Ray at one end is refused by the other."""
    images = {one["image"] for pod in pods(objects) for one in pod.containers if pod.labels[COMPONENT] != "postgres"}
    return sorted(images) if len(images) > 1 else []


def gpus_are_requested_as_limited(objects: Objects) -> list[str]:
    found = []
    for pod in pods(objects):
        for one in pod.containers:
            asked, most = (one["resources"][side].get(GPU) for side in ("requests", "limits"))
            if asked != most:
                found.append(f"{pod.owner} {one['name']}: {asked} requested, {most} at most")
            tolerated = any(each["key"] == GPU for each in pod.spec.get("tolerations", []))
            if (most is not None) != tolerated:
                found.append(f"{pod.owner} {one['name']}: tolerations do not fit the GPUs")
    return found


def somebody_has_a_gpu(objects: Objects) -> list[str]:
    limits = [one["resources"]["limits"] for pod in pods(objects) for one in pod.containers]
    return [] if any(GPU in each for each in limits) else ["no node group with a GPU"]


def nothing_is_exposed(objects: Objects) -> list[str]:
    """No way in from outside: neither by kind of object, nor by kind of service, nor past the network."""
    found = [one["kind"] for one in objects if one["kind"] in ("Ingress", "Gateway", "HTTPRoute", "Route")]
    found += [one["metadata"]["name"] for one in of_kind(objects, "Service") if one["spec"]["type"] != "ClusterIP"]
    for one in of_kind(objects, "RayCluster"):
        head = one["spec"]["headGroupSpec"]
        if head["serviceType"] != "ClusterIP" or head["enableIngress"]:
            found.append(f"head service of {one['metadata']['name']}")
    found += [pod.owner for pod in pods(objects) if pod.spec.get("hostNetwork")]
    return found


def everything_is_denied_first(objects: Objects) -> list[str]:
    denying = {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    return [] if any(one["spec"] == denying for one in of_kind(objects, "NetworkPolicy")) else ["no default deny"]


def the_jobs_api_is_for_jobs(objects: Objects) -> list[str]:
    """Who may reach the head's dashboard port: Ray's own pods, submitted jobs, and KubeRay's operator."""
    head = next(pod for pod in pods(objects) if pod.labels[COMPONENT] == "ray-head")
    found = []
    for policy in of_kind(objects, "NetworkPolicy"):
        if not selects(policy["spec"]["podSelector"], head.labels):
            continue
        for rule in policy["spec"].get("ingress", []):
            open_ports = [port["port"] for port in rule.get("ports", [])]
            if open_ports and JOBS_API not in open_ports:
                continue
            found += [
                f"{policy['metadata']['name']}: {peer}" for peer in rule["from"] if not _may_submit(peer, objects)
            ]
    return found


def _may_submit(peer: dict[str, Any], objects: Objects) -> bool:
    if "namespaceSelector" in peer:
        labels = peer.get("podSelector", {}).get("matchLabels", {})
        return bool(labels.get("app.kubernetes.io/name") == "kuberay-operator")
    found = {pod.labels[COMPONENT] for pod in pods(objects) if selects(peer["podSelector"], pod.labels)}
    return found <= RAY | {"gapwise-job"}


def postgres_is_for_mlflow_and_studies(objects: Objects) -> list[str]:
    guards = [one for one in of_kind(objects, "NetworkPolicy") if _about(one, "postgres", objects)]
    if not guards and any(pod.labels[COMPONENT] == "postgres" for pod in pods(objects)):
        return ["no policy for postgres"]
    peers = [peer for one in guards for rule in one["spec"]["ingress"] for peer in rule["from"]]
    return [str(peer) for peer in peers if not _components(peer, objects) <= RAY | {"mlflow"}]


def _about(policy: dict[str, Any], component: str, objects: Objects) -> bool:
    """A policy for this component and no other."""
    selector = policy["spec"]["podSelector"]
    return {pod.labels[COMPONENT] for pod in pods(objects) if selects(selector, pod.labels)} == {component}


def _components(peer: dict[str, Any], objects: Objects) -> set[str]:
    if "namespaceSelector" in peer:
        return {"somebody else"}
    return {pod.labels[COMPONENT] for pod in pods(objects) if selects(peer["podSelector"], pod.labels)}


def open_ports_are_listened_on(objects: Objects) -> list[str]:
    """Ports of policies by number, of services, monitors and probes by name."""
    found = []
    for policy in of_kind(objects, "NetworkPolicy"):
        theirs = _ports(policy["spec"]["podSelector"], objects)
        wanted = {port["port"] for rule in policy["spec"].get("ingress", []) for port in rule.get("ports", [])}
        found += [f"NetworkPolicy {policy['metadata']['name']}: {port}" for port in wanted - set(theirs.values())]
    for service in of_kind(objects, "Service"):
        theirs = _ports({"matchLabels": service["spec"]["selector"]}, objects)
        wanted_names = {port["targetPort"] for port in service["spec"]["ports"]}
        found += [f"Service {service['metadata']['name']}: {port}" for port in wanted_names - set(theirs)]
    for monitor in of_kind(objects, "PodMonitor"):
        theirs = _ports(monitor["spec"]["selector"], objects)
        wanted_names = {one["port"] for one in monitor["spec"]["podMetricsEndpoints"]}
        found += [f"PodMonitor {monitor['metadata']['name']}: {port}" for port in wanted_names - set(theirs)]
    return found


def _ports(selector: dict[str, Any], objects: Objects) -> dict[str, int]:
    return {name: port for pod in pods(objects) if selects(selector, pod.labels) for name, port in pod.ports.items()}


def asked_for(objects: Objects) -> set[tuple[str, str, str]]:
    """(kind, name, key) of what pods refer to, without a key where the whole is meant. Optional ones are left out."""
    found = set()
    for pod in pods(objects):
        found |= {("ServiceAccount", pod.spec["serviceAccountName"], "")} if "serviceAccountName" in pod.spec else set()
        for volume in pod.spec.get("volumes", []):
            if "persistentVolumeClaim" in volume:
                found.add(("PersistentVolumeClaim", volume["persistentVolumeClaim"]["claimName"], ""))
            if "configMap" in volume:
                found.add(("ConfigMap", volume["configMap"]["name"], ""))
        for one in pod.containers:
            found |= set(_of_container(one))
    return found


def _of_container(container: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    for variable in container.get("env", []):
        reference = variable.get("valueFrom", {}).get("secretKeyRef")
        if reference and not reference.get("optional"):
            yield "Secret", reference["name"], reference["key"]
    for source in container.get("envFrom", []):
        for kind, reference in (("ConfigMap", source.get("configMapRef")), ("Secret", source.get("secretRef"))):
            if reference and not reference.get("optional"):
                yield kind, reference["name"], ""


def what_is_referred_to_exists(objects: Objects) -> list[str]:
    """Secrets are made by hand: tests compare them with the commands of the README."""
    made = {(one["kind"], one["metadata"]["name"], "") for one in objects}
    return [
        f"{kind} {name}" for kind, name, key in asked_for(objects) if kind != "Secret" and (kind, name, key) not in made
    ]


def jobs_select_a_cluster_that_exists(objects: Objects) -> list[str]:
    clusters = {one["metadata"]["name"] for one in of_kind(objects, "RayCluster")}
    wanted = {one["spec"]["clusterSelector"]["ray.io/cluster"] for one in of_kind(objects, "RayJob")}
    return sorted(wanted - clusters)


def ticks_call_the_head_of_a_cluster_that_exists(objects: Objects) -> list[str]:
    """KubeRay names the head's service CLUSTER-head-svc, and the token's secret CLUSTER."""
    clusters = {one["metadata"]["name"] for one in of_kind(objects, "RayCluster")}
    found = []
    for one in of_kind(objects, "CronJob"):
        (container,) = next(templates(one))["spec"]["containers"]
        variables = {each["name"]: each for each in container["env"]}
        address = re.fullmatch(
            rf"http://([a-z0-9-]+)-head-svc:{JOBS_API}", variables["RAY_API_SERVER_ADDRESS"].get("value", "")
        )
        token = variables["RAY_AUTH_TOKEN"]["valueFrom"]["secretKeyRef"]
        if address is None or address[1] not in clusters:
            found.append(f"address {variables['RAY_API_SERVER_ADDRESS']}")
        if variables["RAY_AUTH_MODE"].get("value") != "token" or (token["name"], token["key"]) not in {
            (name, "auth_token") for name in clusters
        }:
            found.append(f"token {token}")
    return found


def home_is_the_same_storage_everywhere(objects: Objects) -> list[str]:
    """GAPWISE_HOME is mounted on the head and on every worker, from one claim that many nodes may write."""
    (settings,) = (one["data"] for one in of_kind(objects, "ConfigMap") if one["metadata"]["name"] == "gapwise-env")
    many = {
        one["metadata"]["name"]
        for one in of_kind(objects, "PersistentVolumeClaim")
        if one["spec"]["accessModes"] == ["ReadWriteMany"]
    }
    found = []
    for pod in pods(objects):
        if pod.labels[COMPONENT] not in RAY:
            continue
        claims = {
            one["name"]: one["persistentVolumeClaim"]["claimName"]
            for one in pod.spec.get("volumes", [])
            if "persistentVolumeClaim" in one
        }
        mounted = {mount["mountPath"]: mount["name"] for mount in pod.spec["containers"][0].get("volumeMounts", [])}
        if claims.get(mounted.get(settings["GAPWISE_HOME"], "")) not in many:
            found.append(f"{pod.owner}: {settings['GAPWISE_HOME']} is not shared")
    return found


def nobody_reports_home(objects: Objects) -> list[str]:
    """Ray's usage statistics and MLflow's telemetry are off wherever either runs."""
    settings = {one["metadata"]["name"]: one["data"] for one in of_kind(objects, "ConfigMap")}
    found = []
    for pod in pods(objects):
        component = pod.labels[COMPONENT]
        wanted = {"RAY_USAGE_STATS_ENABLED": "0"} if component in RAY | {"gapwise-job"} else {}
        wanted |= {"MLFLOW_DISABLE_TELEMETRY": "true"} if component in RAY | {"mlflow"} else {}
        for one in pod.containers:
            has = {key: value for name in _settings_of(one) for key, value in settings.get(name, {}).items()}
            has |= {variable["name"]: variable.get("value") for variable in one.get("env", [])}
            found += [f"{pod.owner} {one['name']}: {key}" for key, value in wanted.items() if has.get(key) != value]
    return found


def _settings_of(container: dict[str, Any]) -> list[str]:
    sources = [source.get("configMapRef") for source in container.get("envFrom", [])]
    return [source["name"] for source in sources if source]


def stateful_mounts_have_volumes(objects: Objects) -> list[str]:
    found = []
    for one in of_kind(objects, "StatefulSet"):
        (pod,) = pods([one])
        there = {volume["name"] for volume in pod.spec["volumes"]}
        there |= {claim["metadata"]["name"] for claim in one["spec"]["volumeClaimTemplates"]}
        mounted = {mount["name"] for each in pod.containers for mount in each["volumeMounts"]}
        found += sorted(there ^ mounted)
    return found


RULES: list[Rule] = [
    every_selector_finds_a_pod,
    owners_select_their_own_pods,
    images_have_tags_that_do_not_move,
    ray_runs_one_image,
    gpus_are_requested_as_limited,
    somebody_has_a_gpu,
    nothing_is_exposed,
    everything_is_denied_first,
    the_jobs_api_is_for_jobs,
    postgres_is_for_mlflow_and_studies,
    open_ports_are_listened_on,
    what_is_referred_to_exists,
    jobs_select_a_cluster_that_exists,
    ticks_call_the_head_of_a_cluster_that_exists,
    home_is_the_same_storage_everywhere,
    nobody_reports_home,
    stateful_mounts_have_volumes,
]
