"""The reference page of the job description language, made from the table of attributes.

``python -m schemas.jdl.reference > docs/reference/jdl.md`` writes it; a test compares the two.
"""

# ruff: noqa: E501 - a row of a Markdown table is one line
from __future__ import annotations

import sys
from typing import Final

from .architecture import FAMILIES, X86_LEVELS
from .attributes import ALIASES, ATTRIBUTES, MAX_EXTRA_ATTRIBUTES, SERVER_SET, WITHOUT_EFFECT, Attribute, Kind
from .functions import FUNCTIONS
from .parametric import MAX_PARAMETRIC_JOBS
from .parser import MAX_DEPTH
from .source import MAX_JDL_BYTES
from .tag_expression import MAX_DEPTH as MAX_PARENTHESES
from .tag_expression import MAX_DISTINCT, MAX_LENGTH
from .template import MAX_DESCRIPTION_BYTES

_INTRODUCTION: Final = """\
# Job description language

<!-- Made by `python -m schemas.jdl.reference`; change the table in schemas/jdl/attributes.py, not this page. -->

A job description is a list of statements `Attribute = value;`, with or without brackets around:

```
[
  Executable    = "simulate.sh";
  Arguments     = "--events 1000 --seed %s";
  InputSandbox  = {"simulate.sh", "options.json"};
  OutputSandbox = {"*.log", "summary.json"};
  CPUTime       = 6 * 3600;
  Parameters    = 20;
  ParameterStep = 1;
]
```

`pilotage submit --check FILE` reads a description without sending it; `--output json` prints
`{"jobs": [{"Attribute": value, …}], "errors": [{"line", "column", "attribute", "message"}], "warnings": […]}`. A job there
shows every attribute that was given or that has a meaningful default. All errors of a text are reported at once; a value
out of range is an error and never changed silently. Warnings do not stop a submission.
"""

_TEXT: Final = """\
## How the text is read

ClassAd lexing with DIRAC's habits. At most {kib} KiB of UTF-8; a byte order mark and any line ends are accepted.

| Form | Meaning |
| --- | --- |
| `"text"` | A string. `\\"` `\\\\` `\\n` `\\t` `\\r` `\\a` `\\b` `\\f` `\\v` and octal `\\101` are escapes, octal ones are bytes of UTF-8; before any other character the backslash is dropped, with a warning. |
| `'text'` | A string as well. |
| `run.sh`, `/bin/ls`, `LFN:/vo/x` | One unquoted word is text, unless it is an expression that can be computed: a number, or the name of another attribute of the description. Text with blanks, commas or quotes needs quotes. |
| `7`, `2.5`, `0.`, `1e6`, `0x1F`, `4K` | Numbers; `B` `K` `M` `G` `T` multiply by powers of 1024. Leading zeros are refused where a number is wanted and kept where text is wanted. |
| `true`, `false`, `undefined` | `undefined` is the same as leaving the attribute out. |
| `{{a, b,}}` | A list; a comma at its end is accepted. One text where a list is expected is a list of one. |
| `[A = 1; B = "x"]` | A record, as for Environment. |
| `//`, `/* */`, `#` | Comments. |

Names of attributes may be written in any case. When an attribute is given twice the last one counts, with a warning.
Nesting is limited to {depth} levels.

### Expressions

Values may be constant expressions: `+ - * / %`, comparisons, `&& || !`, `? :`, bit operators, `=?=` and `=!=`,
references to other attributes of the description, `list[0]`, `record.name`, and the functions
{functions}.
Integers have 64 bits and division goes towards zero. Nothing is known of any node here: `other.X` cannot be used.
"""

_NEEDS: Final = """\
## What a node must have

A job goes to a node that fulfils all of these; [Matching](../explanation/matching.md) has the table of conditions.

**Tag expressions.** A name is true if the node has that tag. `!` binds most, then `&&`, then `||`; parentheses as usual. A
name with one of `&|!()` in it stands in single quotes. The whole is one text in double quotes:

```
TagExpression = "gpu && (cvmfs || squid) && !slow";
```

At most {length} characters, {distinct} different tags and {depth} parentheses inside each other. An expression that no
node can ever fulfil (`a && !a`, or `!a` beside `Tags = a`) is an error. It is the same for all jobs of a description:
placeholders are not replaced in it.

**Architecture.** A family as `uname -m` has it, and perhaps a level: `x86_64-v3`, `aarch64`. Known families: {families}.
The levels of x86_64 are v1 to v{x86}, those of its psABI. A node fulfils it if its family is the same and its level is the
same or higher; a family alone means its lowest level.

**Memory.** The node must have MaxRAM (or MinRAM, if that is all there is) and MaxRAMPerProcessor for each processor that
the job gets: the smallest number that it asks for, or with WholeNode all of the node's.

**GPUs.** So many of the node's free GPUs must have GPUMemory and be of one of the models of GPUModel. A model fits if its
words are in the driver's name next to each other, in any case: `A100` fits `NVIDIA A100-SXM4-40GB`, `A10` does not.

**Pools.** A pilot that belongs to a pool takes only jobs that name the pool; a pilot of no pool only jobs that name none.

**Numbers in tags**, as DIRAC writes them (`8Processors`, `MultiProcessor`, `WholeNode`, `4GB`), are read as the attributes
that say the same, with a warning.
"""

_PARAMETRIC: Final = """\
## Several jobs of one description

`Parameters` is a number of jobs, or a list with one value per job; at most {jobs} jobs. With a number, values follow
`ParameterStart` (1), then next value = value × `ParameterFactor` (1) + `ParameterStep` (0). A name behind a dot makes a
further vector: `Parameters.Seed = {{…}}`, or `ParameterStart.Seed`, `ParameterStep.Seed`, `ParameterFactor.Seed`. All
vectors have the same length. Placeholders work in every attribute, also in items of lists and in numbers:

| Placeholder | Becomes |
| --- | --- |
| `%s` | The job's value of `Parameters`. |
| `%(Seed)s` | The job's value of the vector `Seed`; a name without a vector is an error. |
| `%n` | The job's number from 0, padded with zeros to equal width. |
| `%j` | The id of the job, filled in by the server, in every job. |

A value of a vector may be a list: `%s` as a whole item of a list then becomes its items. There is no escape: `%%s` is
`%` and the value. Without `Parameters` only `%j` is replaced. A description filled in, as it travels, has at most
{kib} KiB.
"""

_DIFFERENCES: Final = """\
## Differences to DIRAC

How the text is read; [what a description means for matching](../explanation/differences-from-dirac.md) has a page of its
own.

- A value out of range is an error; DIRAC cuts some silently (CPUTime).
- A name one or two letters away from a known attribute is an error that names it; DIRAC accepts any name. Other unknown
  attributes (at most {extras}) are kept with the job and warned about.
- Strings follow ClassAd: `;`, `,`, brackets and escaped quotes inside quotes are text. DIRAC splits or drops some of them.
- Single quotes are quotes; DIRAC keeps them as part of the value.
- Expressions are computed; DIRAC keeps their text.
- OutputSandbox, StdOutput and StdError name files of the work directory: no absolute paths, no `..`.
- `%(X)s` without a vector is an error; values are not searched for placeholders again.
- Adjacent strings `"a" "b"` are an error (ClassAd joins them, which hides a forgotten comma).

### Attributes that are known but not used

Set from your login, ignored with a warning: {server}.

Kept without effect, with a warning:

{without_effect}
"""


def render() -> str:
    """Return the reference page as Markdown."""
    functions = ", ".join(f"`{name}`" for name in sorted([*FUNCTIONS, "ifthenelse"]))
    effect = "\n".join(f"- `{name}`: {reason}." for name, reason in sorted(WITHOUT_EFFECT.items()))
    server = ", ".join(f"`{name}`" for name in sorted(SERVER_SET.values()))
    return "\n".join(
        [
            _INTRODUCTION,
            _table(),
            _NEEDS.format(
                length=MAX_LENGTH,
                distinct=MAX_DISTINCT,
                depth=MAX_PARENTHESES,
                families=", ".join(f"`{family}`" for family in FAMILIES),
                x86=X86_LEVELS,
            ),
            _PARAMETRIC.format(jobs=MAX_PARAMETRIC_JOBS, kib=MAX_DESCRIPTION_BYTES // 1024),
            _TEXT.format(kib=MAX_JDL_BYTES // 1024, depth=MAX_DEPTH, functions=functions),
            _DIFFERENCES.format(extras=MAX_EXTRA_ATTRIBUTES, server=server, without_effect=effect),
        ]
    )


def _table() -> str:
    lines = ["## Attributes", "", "| Attribute | Value | Default | Meaning |", "| --- | --- | --- | --- |"]
    lines.extend(_row(attribute) for attribute in ATTRIBUTES)
    also = ", ".join(f"`{alias}` for `{name}`" for alias, name in sorted(ALIASES.items()))
    return "\n".join([*lines, "", f"Other spellings understood: {also}.", ""])


def _row(attribute: Attribute) -> str:
    default = attribute.default
    shown = "" if default in (None, "", ()) else f"`{str(default).lower() if default is False else default}`"
    meaning = attribute.meaning.replace("|", "\\|")
    return f"| `{attribute.name}` | {_value(attribute)} | {shown} | {meaning} |"


def _value(attribute: Attribute) -> str:
    match attribute.kind:
        case Kind.INTEGER:
            return f"integer, {attribute.minimum} to {attribute.maximum}"
        case Kind.CHOICE:
            return "one of " + ", ".join(f"`{choice}`" for choice in attribute.choices)
        case Kind.BOOLEAN:
            return "`true` or `false`"
        case Kind.TEXT | Kind.WORD | Kind.FILE | Kind.PATH | Kind.ARCHITECTURE | Kind.TAG_EXPRESSION:
            return f"{attribute.kind.value}, at most {attribute.max_length} characters"
        case _:
            return f"{attribute.kind.value}, at most {attribute.max_items}"


if __name__ == "__main__":
    sys.stdout.write(render())
