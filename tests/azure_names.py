"""Lookups of names in Azure's published models, for checking this repository's Azure files without Azure.

Azure silently accepts a misspelt name or rejects it after ten minutes. So every name is looked up in the models of Azure's
own Python SDK, of exactly the API versions that the files use, and every command is parsed by the Azure CLI's own parser.
The Bicep compiler is in none of the registries that this repository builds from, so syntax is checked by two independent
parsers, and references here. The packages are installed in target/azure.

The module is not named `azure`, because that is the SDK's package. Code that only one script needs does not belong here.
"""

import ast
import contextlib
import hashlib
import io
import os
import pathlib
import re
import shlex
import sys
import zipfile

import documents
import support
from support import ROOT, TARGET, Failed

HOME = TARGET / "azure"

# Parsers, and the packages that the Azure CLI needs to parse a command line; all of the CLI has 700 MB.
INSTALLED = """
    lark==1.3.1 pycep-parser==0.7.1 regex==2026.11.19 tree-sitter==0.26.1 tree-sitter-bicep==1.1.0 PyYAML==6.0.4
    argcomplete==3.5.3 azure-cli-core==2.91.0 azure-cli-telemetry==1.1.0 azure-common==1.1.28 azure-core==1.39.0
    azure-mgmt-containerregistry==15.1.0b3 azure-mgmt-containerregistrytasks==1.0.0b1 azure-mgmt-containerservice==41.6.0
    azure-mgmt-core==1.6.0 azure-mgmt-msi==7.1.0 azure-mgmt-resource-deployments==1.0.0b1
    azure-mgmt-resource-deploymentstacks==1.0.0 azure-mgmt-resource==24.0.0 azure-mgmt-servicelinker==1.2.0b3
    certifi==2026.10.19.post1 charset-normalizer==3.5.2 colorama==0.4.6 humanfriendly==10.0 idna==3.20 isodate==0.7.2
    jmespath==1.1.0 knack==0.14.0 msal-extensions==1.3.1 msal==1.39.0 msrest==0.7.1 oauthlib==4.0.1
    packaging==26.3 portalocker==2.10.1 Pygments==2.21.0 python-dateutil==2.9.0.post0 requests-oauthlib==2.0.0
    requests==2.34.2 semver==3.0.4 six==1.17.0 typing_extensions==4.16.0 urllib3==2.8.0 websocket-client==1.8.0
""".split()
# Read as text and never imported.
WHEELS = """
    azure-cli==2.91.0 azure-mgmt-appcontainers==5.1.0 azure-mgmt-applicationinsights==4.1.0
    azure-mgmt-authorization==4.0.0 azure-mgmt-containerregistry==15.0.0 azure-mgmt-containerservice==41.6.0
    azure-mgmt-loganalytics==14.0.0 azure-mgmt-monitor==7.0.0 azure-mgmt-msi==7.1.0 azure-mgmt-network==30.2.0
    azure-mgmt-privatedns==2.0.0 azure-mgmt-prometheusrulegroups==1.0.0 azure-mgmt-redisenterprise==3.1.0
""".split()
CLI_MODULES = ["acr", "acs", "containerapp", "identity", "profile", "resource", "util"]
# Modules that those import inside functions.
CLI_HELPERS = ["appservice", "role"]

# The model of each type of resource: package, folder where a package has several API versions, class.
RESOURCES = {
    "Microsoft.AlertsManagement/prometheusRuleGroups": ("prometheusrulegroups", "", "PrometheusRuleGroupResource"),
    "Microsoft.App/containerApps": ("appcontainers", "", "ContainerApp"),
    "Microsoft.App/managedEnvironments": ("appcontainers", "", "ManagedEnvironment"),
    "Microsoft.Authorization/roleAssignments": ("authorization", "v2022_04_01", "RoleAssignmentCreateParameters"),
    "Microsoft.Cache/redisEnterprise": ("redisenterprise", "", "Cluster"),
    "Microsoft.Cache/redisEnterprise/databases": ("redisenterprise", "", "Database"),
    "Microsoft.Cache/redisEnterprise/databases/accessPolicyAssignments": (
        "redisenterprise", "", "AccessPolicyAssignment"),
    "Microsoft.ContainerRegistry/registries": ("containerregistry", "", "Registry"),
    "Microsoft.ContainerService/managedClusters": ("containerservice", "", "ManagedCluster"),
    "Microsoft.Insights/components": ("applicationinsights", "v2020_02_02", "ApplicationInsightsComponent"),
    "Microsoft.Insights/dataCollectionEndpoints": ("monitor", "", "DataCollectionEndpointResource"),
    "Microsoft.Insights/dataCollectionRuleAssociations": (
        "monitor", "", "DataCollectionRuleAssociationProxyOnlyResource"),
    "Microsoft.Insights/dataCollectionRules": ("monitor", "", "DataCollectionRuleResource"),
    "Microsoft.ManagedIdentity/userAssignedIdentities": ("msi", "v2024_11_30", "Identity"),
    "Microsoft.ManagedIdentity/userAssignedIdentities/federatedIdentityCredentials": (
        "msi", "v2024_11_30", "FederatedIdentityCredential"),
    "Microsoft.Monitor/accounts": ("monitor", "", "AzureMonitorWorkspaceResource"),
    "Microsoft.Network/privateDnsZones": ("privatedns", "", "PrivateZone"),
    "Microsoft.Network/privateDnsZones/virtualNetworkLinks": ("privatedns", "", "VirtualNetworkLink"),
    "Microsoft.Network/privateEndpoints": ("network", "", "PrivateEndpoint"),
    "Microsoft.Network/privateEndpoints/privateDnsZoneGroups": ("network", "", "PrivateDnsZoneGroup"),
    "Microsoft.Network/virtualNetworks": ("network", "", "VirtualNetwork"),
    "Microsoft.OperationalInsights/workspaces": ("loganalytics", "", "Workspace"),
}
# The model of a resource's properties, if the one above does not mark the required ones.
PROPERTIES = {"Microsoft.Cache/redisEnterprise": "ClusterCreateProperties"}
# Values that are in no enum of the SDK but that az itself sends.
BEYOND = {"Microsoft-PrometheusMetrics"}
# The results of functions called on a resource.
ANSWERS = {("Microsoft.OperationalInsights/workspaces", "listKeys()"): "SharedKeys"}
# Bicep's own keys of a resource besides its properties, and the functions in use.
OF_BICEP = {"name", "parent", "scope", "dependsOn"}
FUNCTIONS = {
    "empty", "guid", "items", "json", "resourceGroup", "startsWith", "string", "subscriptionResourceId", "uniqueString"}


def check(what, findings):
    support.check(not findings, what, "\n".join(f"  {one}" for one in findings))


# Installing ----------------------------------------------------------------------------------------------------------


def install():
    """Creates a separate environment, again when a version above changes, and restarts the script in it."""
    if pathlib.Path(sys.prefix) == HOME:
        return
    wanted = hashlib.sha256(repr((INSTALLED, WHEELS, CLI_MODULES, CLI_HELPERS, sys.version)).encode()).hexdigest()
    # All versions are pinned, so nothing is resolved; modules are compiled on use, since most are never used.
    support.environment(HOME.name, INSTALLED, "--no-deps", "--no-compile")
    stamp = HOME / "stamp"
    if not stamp.exists() or stamp.read_text() != wanted:
        support.run(HOME / "bin/pip", "download", "--quiet", "--no-deps", "--dest", HOME / "wheels", *WHEELS)
        site = next(HOME.glob("lib/python*/site-packages"))
        with wheel("azure_cli") as package:
            modules = tuple(f"azure/cli/command_modules/{module}/" for module in CLI_MODULES + CLI_HELPERS)
            package.extractall(site, [name for name in package.namelist() if name.startswith(modules)])
        stamp.write_text(wanted)
    support.begin_again_in(HOME)


def wheel(name):
    return zipfile.ZipFile(next((HOME / "wheels").glob(f"{name}-[0-9]*.whl")))


# Azure's models ------------------------------------------------------------------------------------------------------


class Models:
    """The classes of one package of the SDK, parsed without importing it, because an import takes seconds. Both generations
    are supported: _attribute_map of msrest, and rest_field."""

    def __init__(self, package, folder):
        self.sources, self.made = {}, {}
        for name in package.namelist():
            if name.startswith(folder) and re.search(r"(_models\w*|_enums)\.py$", name):
                for source in re.split(r"^(?=class )", package.read(name).decode(), flags=re.MULTILINE)[1:]:
                    self.sources[re.match(r"class (\w+)", source)[1]] = source

    def get(self, name):
        """The fields of a class by their name on the wire, or the set of an enum's values; None for neither."""
        if name not in self.made and name in self.sources:
            [node] = ast.parse(self.sources[name]).body[:1]
            bases = [ast.unparse(base) for base in node.bases]
            if any("Enum" in base for base in bases):
                values = (part.value for part in node.body if isinstance(part, ast.Assign))
                self.made[name] = {value.value for value in values if isinstance(value, ast.Constant)}
            else:
                fields = {}
                for base in bases:
                    fields.update(self.get(base.rpartition(".")[2]) or {})
                self.made[name] = fields
                fields.update(self.generated(node) or self.of_msrest(node))
        return self.made.get(name)

    def generated(self, node):
        fields = {}
        for part in node.body:
            if not (isinstance(part, ast.AnnAssign) and isinstance(part.value, ast.Call)):
                continue
            options = {one.arg: ast.unparse(one.value).strip("'\"") for one in part.value.keywords}
            only_read = options.get("visibility") == "['read']"
            required = not only_read and not ast.unparse(part.annotation).startswith("Optional[")
            fields[options.get("name", part.target.id)] = Field(self, part.annotation, required, only_read)
        return fields

    def of_msrest(self, node):
        tables = {
            part.targets[0].id: ast.literal_eval(part.value) for part in node.body
            if isinstance(part, ast.Assign) and part.targets[0].id in ("_attribute_map", "_validation")}
        # In the map an enum is a str; the constructor has its type.
        made = [one for part in node.body if getattr(part, "name", "") == "__init__" for one in part.args.kwonlyargs]
        kinds = {one.arg: one.annotation for one in made if "Union[str, " in ast.unparse(one)}
        fields = {}
        for name, entry in tables.get("_attribute_map", {}).items():
            rules = tables.get("_validation", {}).get(name, {})
            kind = kinds.get(name, entry["type"])
            field = Field(self, kind, rules.get("required", False), rules.get("readonly", False))
            *outer, last = [part.replace("\\.", ".") for part in re.split(r"(?<!\\)\.", entry["key"])]
            inside = fields
            for part in outer:  # properties.x is flattened in Python, but not on the wire
                inside = inside.setdefault(part, Field(self, {}, False, False)).kind
            inside[last] = field
        return fields


class Field:
    def __init__(self, models, kind, required, only_read):
        self.models, self.kind, self.required, self.only_read = models, kind, required, only_read

    def resolve(self):
        """("object", fields), ("enum", values), ("list" or "map", Field), or the name of a plain type and None."""
        kind = self.kind
        if isinstance(kind, dict):
            return "object", kind
        if isinstance(kind, ast.AST):
            kind = ast.unparse(kind).replace("_models.", "").replace("'", "")  # then in the notation of _attribute_map
            for old, new in (
                (r"Optional\[(.*)\]$", r"\1"), (r"Union\[str, (.*?)\]", r"\1"),
                (r"[Ll]ist\[(.*)\]$", r"[\1]"), (r"[Dd]ict\[str, (.*)\]$", r"{\1}"),
            ):
                kind = re.sub(old, new, kind)
        if kind[0] in "[{":
            return ("list" if kind[0] == "[" else "map"), Field(self.models, kind[1:-1], False, False)
        if kind in ("str", "int", "float", "bool"):
            return kind, None
        found = self.models.get(kind)
        if found is None:
            return "any", None
        return ("enum" if isinstance(found, set) else "object"), found


class Sdk:
    """The models of every resource, opened once."""

    def __init__(self):
        self.opened = {}

    def fields(self, resource, answer=None):
        package, folder, name = RESOURCES[resource]
        models = self.models(package, folder)
        fields = models.get(answer or name)
        if resource in PROPERTIES and not answer:
            fields["properties"].kind.update(models.get(PROPERTIES[resource]))
        return fields

    def models(self, package, folder):
        if (package, folder) not in self.opened:
            with wheel(f"azure_mgmt_{package}") as archive:
                self.opened[package, folder] = Models(archive, f"azure/mgmt/{package}/{folder}")
        return self.opened[package, folder]

    def speaks(self, resource, version):
        """Returns whether the models are those of this API version, which is in the package's requests."""
        package, folder, _ = RESOURCES[resource]
        if folder:
            return folder == "v" + version.replace("-", "_")
        with wheel(f"azure_mgmt_{package}") as archive:
            names = [name for name in archive.namelist() if re.search(r"(configuration|operations)\.py$", name)]
            return any(f'"{version}"'.encode() in archive.read(name) for name in names)


class Unknown(str):
    """A value that is known only during deployment; its text is the expression."""


class Either(list):
    """Both values of a condition."""


def walk(value, field, path, findings):
    """Looks up every name, type, enum value and required property below this one."""
    if isinstance(value, Either):
        for one in value:
            walk(one, field, path, findings)
        return
    kind, inner = field.resolve()
    if value is None or kind == "any" or isinstance(value, Unknown):
        return
    if kind == "object":
        if not isinstance(value, dict):
            findings.append(f"{path}: must be an object")
            return
        for name, part in value.items():
            if name not in inner:
                findings.append(f"{path}.{name}: no such property")
            elif inner[name].only_read:
                findings.append(f"{path}.{name}: is read-only")
            else:
                walk(part, inner[name], f"{path}.{name}", findings)
        findings += [f"{path}.{name}: is missing" for name, one in inner.items() if one.required and name not in value]
    elif kind in ("list", "map"):
        if not isinstance(value, list if kind == "list" else dict):
            findings.append(f"{path}: must be a {kind}")
            return
        for name, part in enumerate(value) if kind == "list" else value.items():
            walk(part, inner, f"{path}[{name}]", findings)
    elif kind == "enum":
        if value not in inner and value not in BEYOND:
            findings.append(f"{path}: {value!r} is not one of {', '.join(sorted(inner))}")
    else:
        types = {"str": str, "int": int, "float": (int, float), "bool": bool}[kind]
        if not isinstance(value, types) or (isinstance(value, bool) and kind != "bool"):
            findings.append(f"{path}: {value!r} must be {kind}")


# Bicep ---------------------------------------------------------------------------------------------------------------


class Bicep:
    """A Bicep file: its declarations, and its expressions as values."""

    def __init__(self, text):
        import tree_sitter
        import tree_sitter_bicep

        self.text = text
        language = tree_sitter.Language(tree_sitter_bicep.language())
        self.tree = tree_sitter.Parser(language).parse(text.encode()).root_node
        self.params, self.variables, self.resources, self.outputs, self.types, self.undescribed = {}, {}, {}, {}, {}, []
        described = False
        for node in self.tree.named_children:
            parts = node.named_children
            if node.type == "decorators":
                described = "@description('" in self.source(node)
                continue
            if node.type == "parameter_declaration":
                self.params[self.source(parts[0])] = parts[2] if len(parts) > 2 else None
            elif node.type == "variable_declaration":
                self.variables[self.source(parts[0])] = parts[1]
            elif node.type == "output_declaration":
                self.outputs[self.source(parts[0])] = parts[2]
            elif node.type == "resource_declaration":
                body = parts[-1].named_children[-1] if parts[-1].type == "if_statement" else parts[-1]
                self.resources[self.source(parts[0])] = body
                self.types[self.source(parts[0])] = self.source(parts[1].named_children[0]).split("@")
            if node.type in ("parameter_declaration", "output_declaration") and not described:
                self.undescribed.append(self.source(parts[0]))
            described = described and node.type == "comment"

    def source(self, node):
        return node.text.decode()

    def value(self, node, known=None):
        """The value of an expression: one value if `known` is given; otherwise both sides of each condition, and Unknown."""
        parts, source = [one for one in node.named_children if one.type != "comment"], self.source(node)
        if known and source in known:
            return known[source]
        if node.type == "object":
            return {self.key(name, known): self.value(value, known) for name, value in map(self.pair, parts)}
        if node.type == "for_statement":  # one element represents all
            return [self.value(parts[-1], known)]
        if node.type == "array":
            return [self.value(one, known) for one in parts]
        if node.type == "string":
            values = [
                self.value(one.named_children[0], known) if one.type == "interpolation" else self.source(one)
                for one in parts]
            known_all = not any(isinstance(one, (Unknown, Either)) for one in values)
            return "".join(map(str, values)) if known_all else Unknown(source)
        if node.type == "number":
            return int(source)
        if node.type in ("boolean", "null"):
            return {"true": True, "false": False, "null": None}[source]
        if node.type == "identifier":
            expression = self.variables.get(source, self.params.get(source) if known is not None else None)
            return Unknown(source) if expression is None else self.value(expression, known)
        if node.type == "ternary_expression":
            if known is None:
                return Either(self.value(one) for one in parts[1:])
            condition = self.value(parts[0], known)
            return Unknown(source) if isinstance(condition, Unknown) else self.value(parts[2 - bool(condition)], known)
        if node.type == "call_expression" and self.source(parts[0]) in ("json", "string", "empty"):
            argument = self.value(parts[1].named_children[0], known)
            if not isinstance(argument, Unknown):
                return {"json": float, "string": str, "empty": lambda one: not one}[self.source(parts[0])](argument)
        return Unknown(source)

    def key(self, node, known):
        return self.value(node, known) if node.type == "string" else self.source(node)

    def pair(self, node):
        return node.named_children[0], node.named_children[-1]

    def every(self, kind):
        nodes = [self.tree]
        while nodes:
            node = nodes.pop()
            if node.type == kind:
                yield node
            nodes += node.named_children

    def property(self, body, name):
        pairs = (self.pair(node) for node in body.named_children if node.type == "object_property")
        return next((value for key, value in pairs if self.source(key) == name), None)


def check_syntax(text):
    import pycep

    bicep, findings = Bicep(text), []
    for node in bicep.every("ERROR"):
        findings.append(f"line {node.start_point[0] + 1}: not valid Bicep: {bicep.source(node)[:60]}")
    if bicep.tree.has_error and not findings:
        findings.append("incomplete line or block")
    try:
        pycep.BicepParser().parse(text=text)
    except Exception as error:  # the parser raises various kinds
        findings.append(str(error).partition("\n")[0])
    return findings


def check_references(text):
    """Checks names as a compiler would: declared, used, and known when they are needed."""
    bicep, findings = Bicep(text), []
    declared = {*bicep.params, *bicep.variables, *bicep.resources}
    declared |= {bicep.source(node.named_children[0]) for node in bicep.every("for_statement")}
    used = set()
    for node in bicep.every("identifier"):
        parent, name = node.parent, bicep.source(node)
        first = parent.named_children[0] == node
        if parent.type == "call_expression" and first:
            if parent.parent.type != "decorator" and name not in FUNCTIONS:
                findings.append(f"{name}(): no such function")
        elif not (first and (parent.type.endswith("_declaration") or parent.type == "object_property")):
            used.add(name)
    findings += [f"{name}: is not declared" for name in sorted(used - declared)]
    findings += [f"{name}: is never used" for name in sorted({*bicep.params, *bicep.variables} - used)]
    findings += [f"{name}: has no @description" for name in bicep.undescribed]
    for symbol, body in bicep.resources.items():
        for part in ("name", "scope", "parent"):
            node = bicep.property(body, part)
            if node and ".properties" in bicep.source(node):
                findings.append(f"{symbol}.{part}: must be known before anything is deployed")
        for node in (bicep.property(body, "dependsOn") or body).named_children:
            if node.type not in ("object_property", "comment") and bicep.source(node) not in bicep.resources:
                findings.append(f"{symbol}.dependsOn: {bicep.source(node)} is not a resource")
        if bicep.types[symbol][0].count("/") > 1 and not bicep.property(body, "parent"):
            findings.append(f"{symbol}: has no parent")
    return findings


def check_resources(text, sdk):
    bicep, findings = Bicep(text), []
    for symbol, body in bicep.resources.items():
        resource, version = bicep.types[symbol]
        if resource not in RESOURCES:
            findings.append(f"{symbol}: {resource} has no model in this script")
            continue
        if not re.fullmatch(r"\d{4}-\d\d-\d\d", version) or not sdk.speaks(resource, version):
            findings.append(f"{symbol}: {version} is not the API version of the models, {RESOURCES[resource][0]}")
        written = {name: value for name, value in bicep.value(body).items() if name not in OF_BICEP}
        fields = {name: field for name, field in sdk.fields(resource).items() if name not in OF_BICEP}
        if not bicep.property(body, "name"):
            findings.append(f"{symbol}.name: is missing")
        if existing(bicep, body):
            fields = {}
        walk(written, Field(None, fields, False, False), symbol, findings)
    for node in bicep.every("member_expression"):
        inner = node.parent.type in ("member_expression", "call_expression") and node.parent.named_children[0] == node
        if not inner:
            follow(bicep, node, sdk, findings)
    return findings


def existing(bicep, body):
    return " existing =" in bicep.source(body.parent).partition("\n")[0]


def follow(bicep, node, sdk, findings):
    """Looks up a property that is read from another resource, such as redis.properties.hostName."""
    symbol, *steps = bicep.source(node).split(".")
    if symbol not in bicep.resources:
        return
    resource, _ = bicep.types[symbol]
    always = {name: Field(None, "str", False, True) for name in ("id", "name")}
    field = Field(None, {**sdk.fields(resource), **always}, False, False)
    for step in steps:
        kind, inner = field.resolve()
        if answer := ANSWERS.get((resource, step)):
            field = Field(None, sdk.fields(resource, answer), False, False)
        elif kind == "map":  # any name
            field = inner
        elif kind != "object" or step not in inner:
            findings.append(f"{bicep.source(node)}: no such property: {step}")
            return
        else:
            field = inner[step]


def differences(one, other, path=""):
    if isinstance(one, dict) and isinstance(other, dict):
        pairs = [(f".{name}", one.get(name, "nothing"), other.get(name, "nothing")) for name in {**one, **other}]
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        pairs = [(f"[{number}]", *pair) for number, pair in enumerate(zip(one, other))]
    else:
        return [] if one == other and type(one) is type(other) else [f"{path}: {one!r} and {other!r}"]
    return [line for name, left, right in pairs for line in differences(left, right, path + name)]


# Commands ------------------------------------------------------------------------------------------------------------


def commands(code):
    """Every `az …` command in shell code, as words."""
    found = []
    for line in re.findall(r"(?:^|[\s(])(az [a-z].*)$", re.sub(r"\\\n *", "", code), re.MULTILINE):
        words = shlex.split(line, comments=True)
        for end in ("|", "&&", "&"):
            words = words[: words.index(end)] if end in words else words
        found.append([word.removesuffix(")") for word in words])
    return found


def comments(text):
    """The shell code in comments: indented text, after the word in capitals that it explains."""
    return "\n".join(re.findall(r"^(?:#|//) {3,}(?:[A-Z_]+ +)?((?:az|--).*)$", text, re.MULTILINE))


def section(text, about):
    """A section of a Markdown text."""
    found = re.search(rf"^(#+) [^\n]*\b{about}\b[^\n]*\n(.*?)(?=^\1 |\Z)", text, re.MULTILINE | re.DOTALL)
    if not found:
        raise Failed(f"the README has no section about {about}")
    return found[2]


def shell(text):
    """The shell code in Markdown: blocks, and commands with options within sentences."""
    blocks = [code for language, code in documents.blocks(text) if language in documents.SHELLS]
    return "\n".join([*blocks, *(one for one in documents.in_sentences(text) if re.match("az .* --", one))])


class Az:
    """The Azure CLI's own parser, stopped as soon as it has parsed a command line."""

    class Parsed(BaseException):
        pass

    class Refused(BaseException):
        pass

    def __init__(self):
        # No settings of the user's own az, and no telemetry.
        os.environ["AZURE_CONFIG_DIR"] = str(HOME / "az")
        os.environ["AZURE_CORE_COLLECT_TELEMETRY"] = "no"
        from azure.cli.core import AzCli, MainCommandsLoader
        from azure.cli.core.azclierror import AzCLIError
        from azure.cli.core.commands import _load_module_command_loader

        def load(loader, args):
            for module in CLI_MODULES:
                table, groups, *_ = _load_module_command_loader(loader, args, module)
                for name, command in table.items():
                    command.command_source = module
                    loader.cmd_to_loader_map[name] = [command.loader]
                loader.command_table.update(table)
                loader.command_group_table.update(groups)
            return loader.command_table

        def fail(_, error):
            raise error

        def complain(error):
            raise self.Refused(error.error_msg)

        MainCommandsLoader.load_command_table = load
        AzCli.exception_handler = fail
        AzCLIError.print_error = complain

    def refuses(self, words):
        from azure.cli.core import get_default_cli
        from knack.events import EVENT_INVOKER_POST_PARSE_ARGS

        def stop(*_, **__):
            raise self.Parsed

        cli, said = get_default_cli(), io.StringIO()
        cli.register_event(EVENT_INVOKER_POST_PARSE_ARGS, stop)
        try:
            with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
                cli.invoke(words[1:], out_file=said)
        except self.Parsed:
            return None
        except self.Refused as refused:
            return str(refused).partition("\n")[0]
        return f"was not parsed: {said.getvalue()}"


def check_commands(found, az, texts):
    """Checks commands; `texts` has each Bicep file by its path, to look up parameters and outputs."""
    files, findings = {path: Bicep(text) for path, text in texts.items()}, []
    outputs = {name for bicep in files.values() for name in bicep.outputs}
    for words in found:
        line = " ".join(words)
        if said := az.refuses(words):
            findings.append(f"{line}: {said}")
            continue
        after = {words[number]: words[number + 1] for number in range(len(words) - 1)}
        for flag in {"--template-file", "--yaml"} & set(after):
            if not (ROOT / after[flag]).exists():
                findings.append(f"{line}: no such file: {after[flag]}")
        if words[1:4] == ["deployment", "group", "create"] and after.get("--template-file") in files:
            bicep = files[after["--template-file"]]
            start = words.index("--parameters") + 1
            end = next((number for number in range(start, len(words)) if words[number].startswith("--")), len(words))
            given = {word.partition("=")[0] for word in words[start:end]}
            findings += [f"{line}: no such parameter: {name}" for name in sorted(given - set(bicep.params))]
            required = {name for name, default in bicep.params.items() if default is None}
            findings += [f"{line}: {name} is missing" for name in sorted(required - given)]
        output = re.match(r"properties\.outputs\.(\w+)\.value$", after.get("--query", ""))
        if output and output[1] not in outputs:
            findings.append(f"{line}: no such output: {output[1]}")
    return findings
