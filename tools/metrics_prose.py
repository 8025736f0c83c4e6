"""What docs/metrics.md says beside the catalogue: how to scrape, what bounds the series, and queries that help."""

# Families with labels whose values neither the GPUs nor the configuration bounds: what does.
FREE = {
    "lease": "opt-in; a series for each GPU of a live lease, of 1,000 leases at most; it is gone with the lease",
    "lease_used_bytes": "the same",
    "rpc_messages": "the message types of the contract, of health and of reflection: 60, all there from the start",
    "gpu": "one for each GPU",
    "nvml_errors": "the NVML calls that the arbiter makes times the errors that they met; most are never met",
    "gpu_utilization_score": "one for each GPU that was analyzed; it changes its labels with the GPU's holder",
    "gpu_utilization_status": "the same",
    "analysis_confidence_ratio": "the same",
    "analysis_adjusted_score": "the same",
    "build": "one",
}

QUERIES = """\
Leases granted a second, by task:

```promql
sum by (task) (rate(gpu_arbiter_acquire_total{outcome="granted"}[5m]))
```

Share of requests that failed (those that their client took back do not count):

```promql
sum(rate(gpu_arbiter_acquire_total{outcome=~"timeout|queue_full|no_memory|error"}[5m]))
  / sum(rate(gpu_arbiter_acquire_total{outcome!="cancelled"}[5m]))
```

Share of reported work that failed, by task:

```promql
sum by (task) (rate(gpu_arbiter_work_total{result=~"failed|out_of_memory"}[5m]))
  / sum by (task) (rate(gpu_arbiter_work_total[5m]))
```

Share of reported work that ran on the CPU:

```promql
sum(rate(gpu_arbiter_work_total{device="cpu"}[5m])) / sum(rate(gpu_arbiter_work_total[5m]))
```

95th percentile of the wait for a grant, by task:

```promql
histogram_quantile(0.95,
  sum by (le, task) (rate(gpu_arbiter_queue_wait_seconds_bucket{outcome="granted"}[5m])))
```

Mean time that a lease is held, by task:

```promql
sum by (task) (rate(gpu_arbiter_lease_hold_seconds_sum[5m]))
  / sum by (task) (rate(gpu_arbiter_lease_hold_seconds_count[5m]))
```

Who waits and for what, at this moment (a request that names two GPUs counts at both):

```promql
sum by (gpu, task, reason) (gpu_arbiter_waiters) > 0
```

Seconds that the oldest request of each GPU has waited (no result: nobody waits):

```promql
time() - gpu_arbiter_oldest_waiter_enqueued_timestamp_seconds
```

How leases end when their holder does not release them:

```promql
sum by (task, end) (increase(gpu_arbiter_lease_ends_total{end!="released"}[1h])) > 0
```

Share of a GPU's memory that is promised, and that is used by processes without a lease:

```promql
gpu_arbiter_memory_committed_bytes / gpu_arbiter_memory_limit_bytes
```

```promql
gpu_arbiter_memory_unleased_bytes / gpu_arbiter_memory_limit_bytes
```

GPUs that do little while somebody waits (requests that any GPU suits count at `gpu="any"`):

```promql
gpu_arbiter_gpu_utilization_ratio < 0.4
  and on (instance) sum by (instance) (gpu_arbiter_waiters) > 0
```

Utilization under the GPU's UUID and model instead of its key:

```promql
gpu_arbiter_gpu_utilization_ratio
  * on (instance, gpu) group_left (gpu_uuid, gpu_name) gpu_arbiter_gpu_info
```

Hours of lease time, by namespace, over a day (leases count when they end):

```promql
sum by (holder_namespace) (increase(gpu_arbiter_lease_seconds_total[1d])) / 3600
```
"""

SCRAPE = """\
scrape_configs:
  - job_name: gpu-arbiter
    scrape_interval: 15s
    static_configs:
      - targets: ["127.0.0.1:9402"]
"""

PAGE = (
    """\
<!-- Generated from the catalogue of metrics by `make proto`; edits here are lost. -->
# Metrics

The arbiter serves {families} families of metrics at `http://127.0.0.1:9402/metrics`. All names begin with
`gpu_arbiter_`. Units are base units (seconds, bytes, hertz, a ratio from 0 to 1) and stand at the end of the name.

`gpu-arbiter check --metrics http://127.0.0.1:9402` proves on a running arbiter that the page is as it should be
([cli.md](cli.md#check)).

## Scraping

```yaml
"""
    + SCRAPE
    + """```

The arbiter listens on loopback addresses only, so Prometheus, or an agent that forwards, runs on the same machine.

Two formats are served, by what the `Accept` header asks for:

- the classic text format, `text/plain; version=0.0.4; charset=utf-8`, to whoever asks for nothing in particular;
- OpenMetrics, `application/openmetrics-text; version=1.0.0; charset=utf-8`, to whoever prefers it, as Prometheus does.
  Only this one has exemplars: the trace of a lease that fell into a bucket of a histogram. Prometheus keeps them when
  it is started with `--enable-feature=exemplar-storage`.

In the classic format an info family has the type gauge, as that format knows no info. There are no `_created` series.

```sh
curl -s http://127.0.0.1:9402/metrics
curl -s -H 'Accept: application/openmetrics-text' http://127.0.0.1:9402/metrics
```

### Settings

| Key | Default | What it does |
|---|---|---|
{settings}
### What is there and what is absent

- A counter is there from the start, at 0, for every label set that is known: every GPU, every configured task type. So
  is the number of leases and of waiters. `increase()` sees the first event. Of a metric that would have more than 2,000
  label sets so (hundreds of task types on dozens of GPUs), each comes with its first use.
- A histogram comes with its first value.
- What is not known is absent, never 0: a gauge of a reading goes while the reading is stale or the GPU is lost, and one
  that the GPU does not report is never there.
- A lease or request on several GPUs counts at each of them: `sum` over `gpu` counts it more than once.
- Counters begin at 0 when the arbiter starts again. Leases that survived that are in `gpu_arbiter_leases` at once.

## Every metric

{sections}
## Labels, and what bounds them

No value comes from a client's free text. A lease, a request, a job, a session or a process is never a label, but in
the two families that `telemetry.lease_info` switches on. Labels without a list above:

| Label | Values |
|---|---|
{labels}
These families have labels that something else bounds:

| Family | Its series |
|---|---|
{free}
A GPU that goes away, and a task type or namespace that is taken out of the configuration, keep what they have counted
until the arbiter starts again.

How many lines that makes: on one GPU with three configured task types at most {small}, on eight GPUs with twenty at
most {large}, beside those of the table above. `tasks` are the configured ones, the built-in `RUN`, and `other`. Most of
the large page are:

| Family | Lines | With 8 GPUs and 20 task types |
|---|---|---|
{series}
## Queries

{queries}
## If you come from an earlier arbiter

What the older names became. Times that were in milliseconds are in seconds, MHz and MB are hertz and bytes,
percent are ratios.

| Older name | Here |
|---|---|
{older}"""
)
