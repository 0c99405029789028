"""Checks of the Helm and kubectl commands in the documents, without a cluster.

Each `helm install` is rendered with its exact arguments; every other command must refer to a release, namespace, object and
port that the chart creates. Helm and kubectl themselves parse each command and stop at the missing cluster. tests/kind runs
the commands in a cluster.
"""

import os
import pathlib
import re
import shlex
import subprocess
import tempfile

import documents
import support
from support import ROOT, Failed

# Values for the shell's variables; any value of the right form will do.
VARIABLES = {
    "CLIENT_ID": "11111111-1111-1111-1111-111111111111", "output clientId": "11111111-1111-1111-1111-111111111111",
    "REDIS_HOST": "name.region.redis.azure.net", "output redisEndpoint": "name.region.redis.azure.net:10000",
    "REGISTRY_NAME": "registry", "output registry": "registry.azurecr.io", "TAG": "abcdef0",
    "NAMESPACE": "entra-redis"}
# A configuration with an address on which nothing listens.
NOWHERE = """
apiVersion: v1
kind: Config
clusters: [{name: none, cluster: {server: "http://127.0.0.1:9"}}]
contexts: [{name: none, context: {cluster: none}}]
current-context: none
"""
# Capabilities that the chart requires of the cluster for some resources.
RENDERED = ("--kube-version", "1.37.0", "--api-versions", "azmonitoring.coreos.com/v1")
KINDS = {"deployment": "Deployment", "service": "Service"}


def words(command):
    """A command's words, with the shell's variables and the words in capitals replaced."""
    command = re.sub(r"\$\((output \w+)\)|\$(\w+)", lambda name: VARIABLES.get(name[1] or name[2], name[0]), command)
    return shlex.split(re.sub(r"=CLIENT_ID\b", f"={VARIABLES['CLIENT_ID']}", command))


def after(line, option):
    return line[line.index(option) + 1] if option in line[:-1] else None


def ports(made):
    """The ports of an object that can be forwarded."""
    if made["kind"] == "Service":
        return {str(port["port"]) for port in made["spec"]["ports"]}
    containers = made["spec"]["template"]["spec"]["containers"]
    return {str(port["containerPort"]) for container in containers for port in container["ports"]}


class Reader:
    """Helm, kubectl and the service's own binary, run without a cluster."""

    def __init__(self, helm, binary):
        support.install(("kubectl", "kubernetes-client"))
        self.programs = {"helm": str(helm), "kubectl": "kubectl"}
        self.binary, self.known = binary, {}
        self.home = tempfile.TemporaryDirectory()
        (pathlib.Path(self.home.name) / "config").write_text(NOWHERE)

    def run(self, *line):
        if line not in self.known:
            environment = {"PATH": os.environ["PATH"], "HOME": self.home.name, "KUBECONFIG": f"{self.home.name}/config"}
            self.known[line] = subprocess.run(
                [self.programs.get(line[0], line[0]), *line[1:]], cwd=ROOT, env=environment, stdin=subprocess.DEVNULL,
                capture_output=True, text=True, timeout=60)
        return self.known[line]

    def refuses(self, line):
        """The error of a command, or None if the only error is the missing cluster."""
        said = self.run(*line).stderr.strip()
        return None if re.search(r"127\.0\.0\.1:9\b.*refused", said) else said.partition("\n")[0] or "it exited without a message"

    def rendered(self, line):
        """The objects of a `helm install` by kind and name, or its error."""
        import yaml

        ran = self.run("helm", "template", *line[2:], *RENDERED)
        if ran.returncode:
            return None, ran.stderr.strip()
        made = [one for one in yaml.safe_load_all(ran.stdout) if one]
        return {(one["kind"], one["metadata"]["name"]): one for one in made}, None

    def is_command(self, line):
        return line[0] == "entra-redis" and self.run(str(self.binary), *line[1:], "--help").returncode == 0


def check_document(text, reader):
    lines = [words(command) for command in documents.in_blocks(text) if re.match("(helm|kubectl) ", command)]
    installs = {}  # words and objects by release and namespace
    for line in lines:
        if line[:2] == ["helm", "install"]:
            made, wrong = reader.rendered(line)
            if wrong:
                yield f"{' '.join(line)}: {wrong}"
            installs[line[2], after(line, "--namespace")] = line, made or {}
    for line in lines:
        command = " ".join(line)
        if wrong := reader.refuses(line):
            yield f"{command}: {wrong}"
        namespace = after(line, "--namespace")
        if line[0] == "helm":
            if (line[2], namespace) not in installs:
                yield f"{command}: no such release is installed in that namespace"
            elif line[1] == "upgrade":
                sets = [part for one, value in zip(line, line[1:]) if one == "--set" for part in (one, value)]
                if wrong := reader.rendered([*installs[line[2], namespace][0], *sets])[1]:
                    yield f"{command}: {wrong}"
            continue
        here = [made for (_, one), (_, made) in installs.items() if one == namespace]
        if not here:
            yield f"{command}: nothing is installed in its namespace, {namespace}"
            continue
        targets = [re.fullmatch(r"(deployment|service|pod)/(.+)", word) for word in line]
        for kind, name in (target.groups() for target in targets if target):
            found = next((made[KINDS[kind], name] for made in here if (KINDS[kind], name) in made), None)
            if not found:
                yield f"{command}: the chart creates no {kind} {name}"
            elif line[1] == "port-forward" and line[-1].rpartition(":")[2] not in ports(found):
                yield f"{command}: port {line[-1]} is not one of {sorted(ports(found))}"
        if line[1] in ("exec", "logs", "port-forward") and not any(targets):
            yield f"{command}: without a resource"
        if "--" in line and not reader.is_command(line[line.index("--") + 1:]):
            yield f"{command}: the image has no such command"


def check(texts, reader):
    return [f"{name}: {one}" for name, text in texts.items() for one in check_document(text, reader)]


# Deliberate faults in a document, each of which must be found.
FAULTS = (
    (documents.README, "exec --namespace entra-redis ", "exec ", "nothing is installed in its namespace"),
    (documents.README, "exec --namespace entra-redis ", "exec --namespace redis ", "nothing is installed in its namespace"),
    (documents.README, "kubectl describe pods", "kubectl describes pods", "describes"),
    (documents.README, "deployment/entra-redis --follow", "deployment/redis --follow", "the chart creates no deployment redis"),
    (documents.README, "deployment/entra-redis --follow", "deployment/entra-redis --follows", "unknown flag: --follows"),
    (documents.README, "deployment/entra-redis 9090", "deployment/entra-redis 9091", "port 9091 is not one of"),
    (documents.README, "deployment/entra-redis 9090", "POD 9090", "without a resource"),
    (documents.README, "service/entra-redis 8080:80", "service/entra-redis 8080:81", "port 8080:81 is not one of"),
    (documents.README, "-- entra-redis doctor", "-- entra-redis doctors", "the image has no such command"),
    (documents.README, "helm test entra-redis ", "helm test redis ", "no such release"),
    (documents.README, "--create-namespace --wait", "--create-namespaces --wait", "unknown flag: --create-namespaces"),
    (documents.README, "workloadIdentity.clientId=", "workloadIdentity.client=", "workloadIdentity"),
    (documents.README, "monitor.azureManagedPrometheus", "monitor.azurePrometheus", "azurePrometheus"),
    (documents.STEPS, "helm upgrade entra-redis ", "helm upgrade redis ", "no such release"),
    (documents.STEPS, "--reuse-values --set monitor.azure", "--reuse-values --set monitor.aks", "aksManagedPrometheus"),
    (documents.CHART, "apps --logs", "app --logs", "no such release is installed in that namespace"),
    (documents.CHART, "apps --logs", "apps --log", "unknown flag: --log"),
)


def find_faults(texts, reader):
    for name, old, new, finding in FAULTS:
        if old not in texts[name]:
            raise Failed(f"the text of a deliberate fault no longer exists: {old}")
        found = check({name: texts[name].replace(old, new, 1)}, reader)
        if not any(finding in one for one in found):
            raise Failed(f"not found: {new}\n  found instead: {found}")
    return len(FAULTS)
