"""The commands that the documents show: those in blocks of shell code, and those in the middle of a sentence.

tests/readme runs each of them or names the script that does; tests/chart, tests/aks and tests/container-apps read their share
from here, so that no command is left unchecked. What a command should do does not belong here.
"""

import re

from support import ROOT

README = "README.md"
STEPS = "deploy/aks/README.md"
CHART = "helm/entra-redis/README.md"

FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SHELLS = ("sh", "bash", "console")
# The start of a command in the middle of a sentence: a script of tests/ alone, or a program with at least one more word.
PROGRAM = re.compile(
    r"(?:[A-Z_]+=\S+ )*(?:tests/[a-z-]+(?: .+)?$|\.ci/run$|"
    r"(?:az|azd|cargo|chrt|curl|docker|entra-redis|env|export|git|helm|kubectl|podman|redis-cli|source|wrk) .)")


def read():
    """Returns the text of each document by its path."""
    patterns = (".github/*.md", "crates/*/README.md", "docs/**/*.md")
    names = [README, CHART, STEPS, *(str(path.relative_to(ROOT)) for one in patterns for path in sorted(ROOT.glob(one)))]
    return {name: (ROOT / name).read_text() for name in names}


def blocks(text):
    """Returns language and text of each block."""
    return FENCED.findall(text)


def shell_blocks(text):
    """Yields the commands of each block of shell code, each on one line, without comments; a shell function counts as one."""
    for language, code in blocks(text):
        if language == "console":
            yield re.findall(r"^\$ (.+)$", code, re.MULTILINE)
        elif language in SHELLS:
            code = re.sub(r"\\\n\s*", "", code)
            code = re.sub(r"(?:^|[ \t]+)#.*$", "", code, flags=re.MULTILINE)
            yield [one.strip() for one in re.findall(r"^(\w+\(\) \{\n[\s\S]*?^\}|\S.*)$", code, re.MULTILINE)]


def in_blocks(text):
    """Returns every command in blocks."""
    return [command.removesuffix(" &") for commands in shell_blocks(text) for command in commands]


def in_sentences(text):
    """Returns every command between backticks."""
    spans = (" ".join(span.split()) for span in re.findall(r"`([^`]+)`", FENCED.sub("", text)))
    return [span for span in spans if PROGRAM.match(span)]
