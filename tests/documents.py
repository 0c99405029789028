"""What the documents tell a person to type: the commands in blocks of shell code, and those in the middle of a sentence.

tests/readme runs them or knows who does; tests/chart, tests/aks and tests/container-apps take their part of them from here,
so that no command is one that nobody looked at. What does not belong here: what a command should do.
"""

import re

from support import ROOT

README = "README.md"
STEPS = "deploy/aks/README.md"
CHART = "helm/entra-redis/README.md"

FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SHELLS = ("sh", "bash", "console")
# What begins a command in the middle of a sentence. A script of tests/ is a whole command; of the others two words are.
PROGRAM = re.compile(
    r"(?:[A-Z_]+=\S+ )*(?:tests/[a-z-]+(?: .+)?$|\.ci/run$|"
    r"(?:az|azd|cargo|chrt|curl|docker|entra-redis|env|export|git|helm|kubectl|podman|redis-cli|source|wrk) .)")


def read():
    names = [README, CHART, STEPS, *sorted(str(path.relative_to(ROOT)) for path in (ROOT / ".github").glob("*.md"))]
    return {name: (ROOT / name).read_text() for name in names}


def blocks(text):
    """Language and text of each block."""
    return FENCED.findall(text)


def shell_blocks(text):
    """Of each block of shell code its commands, each on one line, without comments; a function of the shell's is one."""
    for language, code in blocks(text):
        if language == "console":
            yield re.findall(r"^\$ (.+)$", code, re.MULTILINE)
        elif language in SHELLS:
            code = re.sub(r"\\\n\s*", "", code)
            code = re.sub(r"(?:^|[ \t]+)#.*$", "", code, flags=re.MULTILINE)
            yield [one.strip() for one in re.findall(r"^(\w+\(\) \{\n[\s\S]*?^\}|\S.*)$", code, re.MULTILINE)]


def in_blocks(text):
    """Each command of its blocks."""
    return [command.removesuffix(" &") for commands in shell_blocks(text) for command in commands]


def in_sentences(text):
    """Each command between backticks."""
    spans = (" ".join(span.split()) for span in re.findall(r"`([^`]+)`", FENCED.sub("", text)))
    return [span for span in spans if PROGRAM.match(span)]
