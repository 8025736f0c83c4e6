"""The reference of the configuration, generated from its model: a page for people, a schema for editors."""

import json
from pathlib import Path

import yaml

from gpuarbiter_server.config import Config, json_schema
from gpuarbiter_server.config.keys import Key, all_keys, value_at
from gpuarbiter_server.config.older_names import OLDER_NAMES
from gpuarbiter_server.config.sources import FLAG, PREFIX, RESERVED_NAMES, variable

_DOCS = Path(__file__).resolve().parent.parent / "docs"

EXAMPLE = """\
enabled: true
listen: {grpc: "127.0.0.1:50051", socket: auto, http: "127.0.0.1:9402"}
gpus: auto                     # auto | sim:2x24GiB | a list
journal: {path: auto, durability: full}
queue_limit: 8
cooldown: 15s
aging: 1s                      # per priority level
defaults: {priority: 50, max_wait: 3s, max_hold: 8s, busy_policy: WAIT, sharing: EXCLUSIVE,
           watchdog: {yield: true, grace: 5s, revoke: false}}
policies:
  ASR:             {priority: 90, max_wait: 3s}
  NMT:             {priority: 80, max_wait: 3s}
  TTS:             {priority: 70, max_wait: 2s}
  SEMANTIC_REPAIR: {priority: 20, max_wait: 400ms, busy_policy: SKIP}
"""

GPU_LIST = """\
gpus:
  - {key: "gpu:0", memory: 24GiB, uuid: GPU-6f3c1b1e-0000-0000-0000-000000000000, name: NVIDIA L4}
  - {key: "gpu:1", memory: 24GiB}
"""

OLD = '{"gpuArbiter": {"gpuKeys": ["gpu:0"], "defaultHoldMaxMs": 8000, "policies": {"ASR": {"maxWaitMs": 3000}}}}'

_PAGE = """\
<!-- Generated from the model of the configuration by `make proto`; edits here are lost. -->
# Configuration

The arbiter reads a YAML file (JSON is YAML), then the environment, then its flags. Without any of
them it runs with the defaults below.

```yaml
{example}```

An editor that knows JSON schemas checks the file while you write it: `config.schema.json` lies beside this page.

## Who wins

flag > environment > file > default, key by key.

| Source | How a key is named | Example |
|---|---|---|
| flag | `{flag} KEY=VALUE`, the key with dots; the last one for a key counts | `{flag} defaults.max_wait=5s` |
| environment | `{prefix}` and the key, nested with `__`, in any case | `{variable}=5s` |
| file | nested | `defaults: {{max_wait: 5s}}` |

Values are YAML in each of them: `{flag} 'policies.ASR={{priority: 90, max_wait: 3s}}'` sets two keys, and leaves the
policy's other keys as they were. `null` gives a key the default back. An empty variable counts as not set. A task
type with a dot in its name is quoted in a flag: `{flag} 'policies."asr.v2".priority=90'`. In a variable, a task type
is the configured one that differs in case alone, or else as it is written.

Every other name that begins with `{prefix}` is an error, like an unknown key in the file. These belong to the clients
and tools, and are no settings: {reserved}. The variables that Kubernetes makes for a Service whose name begins
with gpu-arbiter are ignored.

These names of an earlier analyzer of GPUs are understood as well, below those of today: {older}. A bare number has the
unit that it had there (seconds for `INTERVAL`, minutes for `TIME_WINDOW_MIN`).

## How values are written

- Durations carry their unit: `400ms`, `3s`, `10m`, `1h`, `1d`. A bare number is refused, but for 0.
- Memory: `512MiB`, `24GiB`, or a whole number of bytes. Units are powers of 1024, and nothing else.
- Names such as `WAIT` and `LEAST_LOADED` are taken in any case.
- `true` and `false` are the only truth values; `off` is a text.
- Each key stands once in its mapping; aliases (`*name`) and tags (`!name`) are refused.

A configuration is checked as a whole before anything starts, and every problem is told at once, with its key, its
value, where it was written and what is allowed. What must fit together is checked once each value is right by itself.

## Every key

*at once*: a live change takes effect at once; leases keep what they have. *at the next start*: it is checked and kept,
and the answer to the change names it.

| Key | Value | Default | Takes effect | What it does |
|---|---|---|---|---|
{keys}
## Policies

`policies` holds one entry for each task type (1 to 64 letters, digits and `_.-`). An entry has the keys of
`defaults`, and takes from there what it does not say: `policies: {{ASR: {{}}}}` is the default policy under the
name ASR, which metrics then tell apart. A task type without an entry has the default policy.

The policy `RUN`, which `gpu-arbiter run` uses, is built in:

```yaml
{built_in}```

Configure its other keys, or these, like those of any policy; what is not configured stays as it is here.

## GPUs

```yaml
gpus: auto            # what the driver shows
gpus: sim:2x24GiB     # two simulated GPUs
```
```yaml
# a list
{gpu_list}```

A key begins with a letter, so that it cannot be mistaken for an index; keys and UUIDs are unique.

## Listening

Only addresses that other machines cannot reach are allowed: `localhost`, `127.0.0.0/8` and `[::1]`. Anything else
would need TLS and tokens, which the arbiter does not have yet. `grpc` and `socket` cannot both be `off`. The path of
a Unix socket has at most 107 bytes.

## Commands

```
gpu-arbiterd config show               # the configuration in force, as a file
gpu-arbiterd config validate           # every problem, or none
gpu-arbiterd config schema             # the JSON schema
gpu-arbiterd config migrate OLD.json   # the older camelCase JSON as today's file
```

`migrate` understands `gpuArbiter: {{enabled, gpuKeys, defaultQueueLimit, defaultHoldMaxMs, policies: {{ASR:
{{priority, maxWaitMs, busyPolicy}}}}}}`, with or without the outer key. What has no equivalent is named in comments.
"""


def configuration_reference() -> dict[Path, str]:
    """docs/configuration.md and docs/config.schema.json."""
    config = Config().file_form()
    page = _PAGE.format(
        example=EXAMPLE,
        gpu_list=GPU_LIST,
        flag=FLAG,
        prefix=PREFIX,
        variable=variable(("defaults", "max_wait")),
        reserved=", ".join(f"`{name}`" for name in RESERVED_NAMES),
        older=", ".join(f"`{name}` (`{'.'.join(meant.path)}`)" for name, meant in OLDER_NAMES.items()),
        keys="".join(_row(key, value_at(config, key.path)) for key in all_keys()),
        built_in=yaml.safe_dump({"policies": config["policies"]}, sort_keys=False),
    )
    schema = json.dumps(json_schema(), indent=2) + "\n"
    return {_DOCS / "configuration.md": page, _DOCS / "config.schema.json": schema}


def _row(key: Key, default: object) -> str:
    text = str(default).lower() if isinstance(default, bool) else str(default)
    effect = "at the next start" if key.needs_restart else "at once"
    return f"| `{'.'.join(key.path)}` | {key.kind} | `{text}` | {effect} | {key.what} |\n"
