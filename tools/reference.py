"""The reference of the configuration, generated from its model: a page for people, a schema for editors."""

import json
from pathlib import Path

import yaml

from gpuarbiter_server.config import Config, json_schema
from gpuarbiter_server.config.keys import Key, all_keys, value_at
from gpuarbiter_server.config.older_names import OLDER_NAMES
from gpuarbiter_server.config.sources import ADMIN_TOKEN, FLAG, PREFIX, RESERVED_NAMES, variable

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

OLDER_YAML = """\
prometheus: {url: "http://prometheus:9090", time_window: 10, step: 30, timeout: 10}   # minutes, seconds, seconds
thresholds: {low_utilization: 20, idle: 10}
scheduler: {interval: 300, max_workers: 8}                                            # seconds
scoring:
  weights: {gpu_util: 0.5, mem_copy: 0.2, mem_used: 0.2, power: 0.1}
ai: {enabled: true, api_url: "https://models.example/v1", model: small, threshold: 0.7, timeout: 30}
control: {enabled: true, api_url: "https://control.example/gpus", timeout: 5}
"""

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
and tools, or hold a secret, and are no settings: {reserved}. The variables that Kubernetes makes for a Service whose
name begins with gpu-arbiter are ignored.

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
would need TLS and tokens for everything, which the arbiter does not have yet. `grpc` and `socket` cannot both be
`off`. The path of a Unix socket has at most 107 bytes.

## The admin token

Whoever changes something over HTTP (`POST /config/update`, and what the console does) says the admin token with it:

```sh
curl -s -H "Authorization: Bearer $(gpu-arbiterd token)" -H 'content-type: application/json' \\
  -d '{{"interval": "60s"}}' http://127.0.0.1:9402/config/update
```

| Where it comes from | |
|---|---|
| `{admin_token}` in the environment | the token itself; it wins |
| `auth: {{admin_token: /path/of/a/file}}` | the file |
| `auth: {{admin_token: auto}}` | the file `admin-token` in the state directory, see `journal.path` |

The last is made at the first start, with 256 bits. A token of yours has 16 to 512 letters, digits and `._~+/-`;
`openssl rand -hex 32` makes one. The file's group may read it, and nobody else: `chmod 600`, or `defaultMode: 0440` of
a Secret in Kubernetes. The arbiter does not start with a file that it cannot read, that others can read, or that holds
no token. A new one takes effect at the next start.

`gpu-arbiterd token` prints the one in force: call it as the arbiter's user, with its options and its environment. With
`journal.durability: memory` there is no state directory; without a token of yours nobody can change anything over HTTP
then, and the log says so.

Without the token the answer is 401, with a wrong one 403. It is in no log and in no answer. Looking needs none, and
neither does the gRPC side: it listens on loopback and on a Unix socket alone, and whoever reaches it is an operator.

## Commands

```
gpu-arbiterd config show               # the configuration in force, as a file
gpu-arbiterd config validate           # every problem, or none
gpu-arbiterd config schema             # the JSON schema
gpu-arbiterd config migrate OLD        # an older file as today's
gpu-arbiterd token                     # the admin token; makes it where there is none yet
```

`migrate` understands the older camelCase JSON, `gpuArbiter: {{enabled, gpuKeys, defaultQueueLimit, defaultHoldMaxMs,
policies: {{ASR: {{priority, maxWaitMs, busyPolicy}}}}}}`, with or without the outer key; and the YAML of an earlier
analyzer of GPUs, whose bare numbers have the unit that they had there:

```yaml
{older_yaml}```

What has no equivalent is named in comments. A key of a model's server is not copied: a comment says where it belongs.
"""


def configuration_reference() -> dict[Path, str]:
    """docs/configuration.md and docs/config.schema.json."""
    config = Config().file_form()
    page = _PAGE.format(
        example=EXAMPLE,
        gpu_list=GPU_LIST,
        older_yaml=OLDER_YAML,
        flag=FLAG,
        prefix=PREFIX,
        admin_token=ADMIN_TOKEN,
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
