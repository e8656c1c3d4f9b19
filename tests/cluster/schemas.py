"""Strict models of every Kubernetes object that `cluster/` emits: the fields we use, no others, in their types.

Not the API's own schemas (they need a cluster, and let a misspelt field pass). Ours refuse more than Kubernetes: a
field that appears for the first time has to be thought about. Models say what one object may be, `rules.py` what
they are together. Nothing is faked.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, model_validator
from pydantic.alias_generators import to_camel

Name = Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", max_length=63)]
PortName = Annotated[str, Field(pattern=r"^[a-z]([-a-z0-9]*[a-z0-9])?$", max_length=15)]
PortNumber = Annotated[int, Field(ge=1, le=65535)]
Quantity = Annotated[str, Field(pattern=r"^[1-9]\d*(m|Ki|Mi|Gi|Ti)?$")]
LabelKey = Annotated[str, Field(pattern=r"^([a-z0-9.-]+/)?[A-Za-z0-9]([A-Za-z0-9_.-]*[A-Za-z0-9])?$")]
LabelValue = Annotated[str, Field(pattern=r"^[A-Za-z0-9]([A-Za-z0-9_.-]*[A-Za-z0-9])?$", max_length=63)]
Labels = dict[LabelKey, LabelValue]
EnvName = Annotated[str, Field(pattern=r"^[A-Z][A-Z0-9_]*$")]
Absolute = Annotated[str, Field(pattern=r"^/[\w./-]+$")]
Image = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.:/_-]*:[\w][\w.-]*$")]
CronExpression = Annotated[str, Field(pattern=r"^(@(hourly|daily|weekly|monthly)|[\d*/,-]+( [\d*/,-]+){4})$")]
Count = Annotated[int, Field(ge=0)]
Seconds = Annotated[int, Field(ge=1)]


class Strict(BaseModel):
    """camelCase names as in Kubernetes, no unknown field, no conversion between types."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, alias_generator=to_camel)


class OneOf(Strict):
    """Exactly one of the fields that may be left out has to be there."""

    @model_validator(mode="after")
    def _exactly_one(self) -> "OneOf":
        optional = [name for name, field in type(self).model_fields.items() if not field.is_required()]
        given = [name for name in optional if getattr(self, name) is not None]
        assert len(given) == 1, f"exactly one of {optional}, got {given}"
        return self


class Metadata(Strict):
    name: Name
    namespace: Name
    labels: Labels = {}


class PodMetadata(Strict):
    labels: Labels


class KeyRef(Strict):
    name: Name
    key: str
    optional: bool = False


class ValueFrom(Strict):
    secret_key_ref: KeyRef


class Env(OneOf):
    name: EnvName
    value: str | None = None
    value_from: ValueFrom | None = None


class NameRef(Strict):
    name: Name
    optional: bool = False


class EnvFrom(OneOf):
    config_map_ref: NameRef | None = None
    secret_ref: NameRef | None = None


class ContainerPort(Strict):
    name: PortName
    container_port: PortNumber


class Resources(Strict):
    requests: dict[str, Quantity]
    limits: dict[str, Quantity]

    @model_validator(mode="after")
    def _memory_is_guaranteed(self) -> "Resources":
        assert "cpu" in self.requests, "no request for cpu"
        assert self.requests["memory"] == self.limits["memory"], "memory: requests and limits differ"
        return self


class Capabilities(Strict):
    drop: Annotated[list[Literal["ALL"]], Field(min_length=1)]


class ContainerSecurity(Strict):
    allow_privilege_escalation: Literal[False]
    read_only_root_filesystem: bool = False
    capabilities: Capabilities


class Seccomp(Strict):
    type: Literal["RuntimeDefault"]


class PodSecurity(Strict):
    run_as_non_root: Literal[True]
    run_as_user: Annotated[int, Field(gt=0)]
    run_as_group: Annotated[int, Field(gt=0)]
    fs_group: Annotated[int, Field(gt=0)] | None = None
    fs_group_change_policy: Literal["OnRootMismatch"] | None = None
    seccomp_profile: Seccomp


class HttpGet(Strict):
    path: Absolute
    port: PortName


class Exec(Strict):
    command: list[str]


class Probe(Strict):
    http_get: HttpGet | None = None
    exec: Exec | None = None
    period_seconds: Seconds
    timeout_seconds: Seconds = 1
    failure_threshold: Seconds = 3

    @model_validator(mode="after")
    def _one_way(self) -> "Probe":
        assert (self.http_get is None) != (self.exec is None), "exactly one of httpGet, exec"
        return self


class Mount(Strict):
    name: Name
    mount_path: Absolute
    read_only: bool = False


class Claim(Strict):
    claim_name: Name


class Empty(Strict):
    pass


class Volume(OneOf):
    name: Name
    persistent_volume_claim: Claim | None = None
    config_map: NameRef | None = None
    empty_dir: Empty | None = None


class Container(Strict):
    name: Name
    image: Image
    command: list[str] = []
    args: list[str] = []
    env: list[Env] = []
    env_from: list[EnvFrom] = []
    ports: list[ContainerPort] = []
    resources: Resources
    security_context: ContainerSecurity
    volume_mounts: list[Mount] = []
    startup_probe: Probe | None = None
    readiness_probe: Probe | None = None
    liveness_probe: Probe | None = None


class Toleration(Strict):
    key: str
    operator: Literal["Exists"]
    effect: Literal["NoSchedule"]


class PodSpec(Strict):
    service_account_name: Name
    automount_service_account_token: Literal[False]
    restart_policy: Literal["Never"] | None = None
    termination_grace_period_seconds: Seconds | None = None
    security_context: PodSecurity
    node_selector: Labels = {}
    tolerations: list[Toleration] = []
    init_containers: list[Container] = []
    containers: Annotated[list[Container], Field(min_length=1)]
    volumes: list[Volume] = []

    @model_validator(mode="after")
    def _mounts_have_volumes(self) -> "PodSpec":
        volumes = {volume.name for volume in self.volumes}
        mounted = {mount.name for one in (*self.init_containers, *self.containers) for mount in one.volume_mounts}
        assert mounted == volumes, f"mounted {sorted(mounted)}, there are {sorted(volumes)}"
        return self


class StatefulPodSpec(PodSpec):
    @model_validator(mode="after")
    def _mounts_have_volumes(self) -> "StatefulPodSpec":
        return self  # a claim template is a volume too: rules.py looks at both


class PodTemplate(Strict):
    metadata: PodMetadata
    spec: PodSpec


class HeadPodSpec(PodSpec):
    service_account_name: None = None
    """KubeRay's own, which may start and stop workers."""
    automount_service_account_token: None = None


class HeadPodTemplate(PodTemplate):
    spec: HeadPodSpec


class StatefulPodTemplate(PodTemplate):
    spec: StatefulPodSpec


class Expression(Strict):
    key: LabelKey
    operator: Literal["In"]
    values: Annotated[list[LabelValue], Field(min_length=1)]


class Selector(Strict):
    """Empty means every pod."""

    match_labels: Labels = {}
    match_expressions: list[Expression] = []


class FullSelector(Selector):
    @model_validator(mode="after")
    def _selects(self) -> "FullSelector":
        assert self.match_labels or self.match_expressions, "selects everything"
        return self


class Object(Strict):
    api_version: str
    kind: str
    metadata: Metadata


class ServiceAccount(Object):
    api_version: Literal["v1"]
    kind: Literal["ServiceAccount"]
    automount_service_account_token: Literal[False]


class ConfigMap(Object):
    api_version: Literal["v1"]
    kind: Literal["ConfigMap"]
    data: dict[str, str]


class ServicePort(Strict):
    name: PortName
    port: PortNumber
    target_port: PortName


class ServiceSpec(Strict):
    type: Literal["ClusterIP"]
    cluster_ip: Annotated[Literal["None"] | None, Field(alias="clusterIP")] = None
    selector: Labels
    ports: Annotated[list[ServicePort], Field(min_length=1)]


class Service(Object):
    api_version: Literal["v1"]
    kind: Literal["Service"]
    spec: ServiceSpec


class StorageRequest(Strict):
    storage: Quantity


class StorageResources(Strict):
    requests: StorageRequest


class ClaimSpec(Strict):
    access_modes: Annotated[list[Literal["ReadWriteMany", "ReadWriteOnce"]], Field(min_length=1, max_length=1)]
    storage_class_name: Name
    resources: StorageResources


class PersistentVolumeClaim(Object):
    api_version: Literal["v1"]
    kind: Literal["PersistentVolumeClaim"]
    spec: ClaimSpec


class Recreate(Strict):
    type: Literal["Recreate"]


class DeploymentSpec(Strict):
    replicas: Count
    strategy: Recreate
    selector: FullSelector
    template: PodTemplate


class Deployment(Object):
    api_version: Literal["apps/v1"]
    kind: Literal["Deployment"]
    spec: DeploymentSpec


class ClaimMetadata(Strict):
    name: Name


class ClaimTemplate(Strict):
    metadata: ClaimMetadata
    spec: ClaimSpec


class StatefulSetSpec(Strict):
    service_name: Name
    replicas: Count
    selector: FullSelector
    template: StatefulPodTemplate
    volume_claim_templates: Annotated[list[ClaimTemplate], Field(min_length=1)]


class StatefulSet(Object):
    api_version: Literal["apps/v1"]
    kind: Literal["StatefulSet"]
    spec: StatefulSetSpec


class JobSpec(Strict):
    backoff_limit: Count
    ttl_seconds_after_finished: Seconds
    template: PodTemplate


class JobTemplate(Strict):
    spec: JobSpec


class CronJobSpec(Strict):
    schedule: CronExpression
    time_zone: Annotated[str, Field(pattern=r"^[A-Z][A-Za-z_]+/[A-Z][A-Za-z_]+$")]
    concurrency_policy: Literal["Forbid"]
    starting_deadline_seconds: Annotated[int, Field(ge=60)]
    successful_jobs_history_limit: Count
    failed_jobs_history_limit: Count
    job_template: JobTemplate


class CronJob(Object):
    api_version: Literal["batch/v1"]
    kind: Literal["CronJob"]
    spec: CronJobSpec


class DisruptionSpec(Strict):
    min_available: Annotated[int, Field(ge=1)]
    selector: FullSelector


class PodDisruptionBudget(Object):
    api_version: Literal["policy/v1"]
    kind: Literal["PodDisruptionBudget"]
    spec: DisruptionSpec


class Relabeling(Strict):
    source_labels: list[Annotated[str, Field(pattern=r"^__meta_kubernetes_\w+$")]]
    target_label: Annotated[str, Field(pattern=r"^[a-z_]+$")]


class Endpoint(Strict):
    port: PortName
    interval: Annotated[str, Field(pattern=r"^\d+s$")]
    relabelings: list[Relabeling] = []


class PodMonitorSpec(Strict):
    selector: FullSelector
    pod_metrics_endpoints: Annotated[list[Endpoint], Field(min_length=1)]


class PodMonitor(Object):
    api_version: Literal["monitoring.coreos.com/v1"]
    kind: Literal["PodMonitor"]
    spec: PodMonitorSpec


class Peer(Strict):
    """Who may talk. No block of addresses, and nobody without a selector."""

    pod_selector: FullSelector | None = None
    namespace_selector: FullSelector | None = None

    @model_validator(mode="after")
    def _says_who(self) -> "Peer":
        assert self.pod_selector or self.namespace_selector, "everybody"
        return self


class PolicyPort(Strict):
    protocol: Literal["TCP", "UDP"]
    port: PortNumber


class Ingress(Strict):
    """Only ever from somebody; all ports where none is named."""

    from_: Annotated[list[Peer], Field(alias="from", min_length=1)]
    ports: list[PolicyPort] = []


class Egress(Strict):
    to: list[Peer] = []
    ports: list[PolicyPort] = []

    @model_validator(mode="after")
    def _says_something(self) -> "Egress":
        assert self.to or self.ports, "everything to everybody"
        return self


class PolicySpec(Strict):
    pod_selector: Selector
    policy_types: Annotated[list[Literal["Ingress", "Egress"]], Field(min_length=1)]
    ingress: list[Ingress] = []
    egress: list[Egress] = []

    @model_validator(mode="after")
    def _types_cover_rules(self) -> "PolicySpec":
        for kind, rules in (("Ingress", self.ingress), ("Egress", self.egress)):
            assert not rules or kind in self.policy_types, f"rules for {kind}, which policyTypes does not name"
        return self


class NetworkPolicy(Object):
    api_version: Literal["networking.k8s.io/v1"]
    kind: Literal["NetworkPolicy"]
    spec: PolicySpec


class AuthOptions(Strict):
    mode: Literal["token"]


class AutoscalerOptions(Strict):
    version: Literal["v2"]
    idle_timeout_seconds: Annotated[int, Field(ge=60)]
    upscaling_mode: Literal["Default", "Conservative"]
    env: list[Env]
    resources: Resources
    security_context: ContainerSecurity


class HeadParams(Strict):
    model_config = ConfigDict(alias_generator=lambda name: name.replace("_", "-"))
    num_cpus: Literal["0"]
    dashboard_host: Literal["0.0.0.0"]


class HeadGroup(Strict):
    service_type: Literal["ClusterIP"]
    enable_ingress: Literal[False]
    ray_start_params: HeadParams
    template: HeadPodTemplate


class WorkerGroup(Strict):
    group_name: Name
    replicas: Count
    min_replicas: Count
    max_replicas: Count
    idle_timeout_seconds: Annotated[int, Field(ge=60)] | None = None
    ray_start_params: Empty
    template: PodTemplate

    @model_validator(mode="after")
    def _in_order(self) -> "WorkerGroup":
        assert self.min_replicas <= self.replicas <= self.max_replicas, "minReplicas <= replicas <= maxReplicas"
        return self


class RayClusterSpec(Strict):
    ray_version: Annotated[str, Field(pattern=r"^\d+\.\d+\.\d+$")]
    auth_options: AuthOptions
    enable_in_tree_autoscaling: Literal[True]
    autoscaler_options: AutoscalerOptions
    head_group_spec: HeadGroup
    worker_group_specs: Annotated[list[WorkerGroup], Field(min_length=1)]


class RayCluster(Object):
    api_version: Literal["ray.io/v1"]
    kind: Literal["RayCluster"]
    spec: RayClusterSpec


class SubmitterConfig(Strict):
    backoff_limit: Count


class RayJobSpec(Strict):
    cluster_selector: Annotated[dict[Literal["ray.io/cluster"], Name], Field(min_length=1)]
    submission_mode: Literal["K8sJobMode"]
    entrypoint: str
    runtime_env_yaml: Annotated[str, Field(alias="runtimeEnvYAML")]
    backoff_limit: Literal[0]
    """KubeRay refuses any other beside a clusterSelector."""
    submitter_config: SubmitterConfig
    submitter_pod_template: PodTemplate


class RayJob(Object):
    api_version: Literal["ray.io/v1"]
    kind: Literal["RayJob"]
    spec: RayJobSpec


Known = Annotated[
    ServiceAccount
    | ConfigMap
    | Service
    | PersistentVolumeClaim
    | Deployment
    | StatefulSet
    | CronJob
    | PodDisruptionBudget
    | PodMonitor
    | NetworkPolicy
    | RayCluster
    | RayJob,
    Field(discriminator="kind"),
]
_KNOWN: TypeAdapter[Any] = TypeAdapter(Known)


def validate(emitted: dict[str, Any]) -> None:
    """Raises pydantic.ValidationError for an object that is not exactly one of ours."""
    _KNOWN.validate_python(emitted)
