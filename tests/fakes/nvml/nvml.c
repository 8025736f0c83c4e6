/* A stand-in for libnvidia-ml.so.1 that drives the real pynvml.
 *
 * What it shows stands in the text file that FAKE_NVML_STATE names; it is read again whenever it
 * changed, so that a test can lose a GPU under a running server. fake.py writes the file and
 * describes its lines. Everything that is not there answers as a driver does that does not know it.
 */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { SUCCESS = 0, UNINITIALIZED = 1, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, NOT_FOUND = 6,
       INSUFFICIENT_SIZE = 7, DRIVER_NOT_LOADED = 9, VERSION_MISMATCH = 25 };
enum { MAX_DEVICES = 64, MAX_PROCESSES = 128, MAX_RULES = 64, TEXT = 96 };
#define NOT_AVAILABLE 0xFFFFFFFFFFFFFFFFULL

typedef struct { unsigned pid; unsigned long long bytes; char kind; } Process;
/* A rule about one function ("*": all of them) of one device: fail with a code, or hang for a while. */
typedef struct { char function[TEXT]; int code; double seconds; } Rule;

typedef struct {
    int parent; /* -1 for a GPU; otherwise this is a MIG instance of that device */
    int instance;
    char uuid[TEXT], name[TEXT];
    unsigned bus, mig, max_instances;
    unsigned long long total, reserved, base_used;
    long long used; /* -1: base_used and the processes */
    unsigned gpu_load, memory_load, milliwatts, limit_milliwatts, celsius, megahertz;
    int reap;
    Process processes[MAX_PROCESSES];
    int process_count;
    Rule rules[MAX_RULES];
    int rule_count;
} Device;

typedef struct {
    char version[TEXT];
    unsigned start; /* changes when NVML is to forget that it was initialized */
    Rule rules[MAX_RULES];
    int rule_count;
    Device devices[MAX_DEVICES];
    int count;
} State;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static State state;
static struct stat seen;
static int initialized; /* how often, as NVML counts it */
static unsigned initialized_start, sessions;

static void add_rule(Rule *rules, int *count, const char *line, int hangs) {
    Rule rule = {.code = 0, .seconds = 0};
    int fields = hangs ? sscanf(line, "%95s %lf", rule.function, &rule.seconds)
                       : sscanf(line, "%95s %d", rule.function, &rule.code);
    if (fields == 2 && *count < MAX_RULES) rules[(*count)++] = rule;
}

static void parse_line(State *into, char *line) {
    char key[TEXT] = "";
    int length = 0;
    if (sscanf(line, "%95s %n", key, &length) < 1) return;
    char *rest = line + length;
    rest[strcspn(rest, "\n")] = 0;
    if (!strcmp(key, "device") && into->count < MAX_DEVICES) {
        Device *made = &into->devices[into->count++];
        memset(made, 0, sizeof *made);
        made->used = -1;
        sscanf(rest, "%d %d", &made->parent, &made->instance);
        return;
    }
    if (!into->count) {
        if (!strcmp(key, "version")) snprintf(into->version, TEXT, "%s", rest);
        else if (!strcmp(key, "start")) into->start = strtoul(rest, 0, 10);
        else if (!strcmp(key, "error")) add_rule(into->rules, &into->rule_count, rest, 0);
        else if (!strcmp(key, "hang")) add_rule(into->rules, &into->rule_count, rest, 1);
        return;
    }
    Device *device = &into->devices[into->count - 1];
    if (!strcmp(key, "uuid")) snprintf(device->uuid, TEXT, "%s", rest);
    else if (!strcmp(key, "name")) snprintf(device->name, TEXT, "%s", rest);
    else if (!strcmp(key, "bus")) device->bus = strtoul(rest, 0, 10);
    else if (!strcmp(key, "mig")) sscanf(rest, "%u %u", &device->mig, &device->max_instances);
    else if (!strcmp(key, "total")) device->total = strtoull(rest, 0, 10);
    else if (!strcmp(key, "reserved")) device->reserved = strtoull(rest, 0, 10);
    else if (!strcmp(key, "base_used")) device->base_used = strtoull(rest, 0, 10);
    else if (!strcmp(key, "used")) device->used = strtoll(rest, 0, 10);
    else if (!strcmp(key, "load")) sscanf(rest, "%u %u", &device->gpu_load, &device->memory_load);
    else if (!strcmp(key, "power")) sscanf(rest, "%u %u", &device->milliwatts, &device->limit_milliwatts);
    else if (!strcmp(key, "celsius")) device->celsius = strtoul(rest, 0, 10);
    else if (!strcmp(key, "megahertz")) device->megahertz = strtoul(rest, 0, 10);
    else if (!strcmp(key, "reap")) device->reap = atoi(rest);
    else if (!strcmp(key, "error")) add_rule(device->rules, &device->rule_count, rest, 0);
    else if (!strcmp(key, "hang")) add_rule(device->rules, &device->rule_count, rest, 1);
    else if (!strcmp(key, "process") && device->process_count < MAX_PROCESSES) {
        Process *process = &device->processes[device->process_count++];
        sscanf(rest, "%u %llu %c", &process->pid, &process->bytes, &process->kind);
    }
}

/* Under the lock. A missing file is a driver that is gone. */
static int refresh(void) {
    const char *path = getenv("FAKE_NVML_STATE");
    struct stat now;
    if (!path || stat(path, &now)) return DRIVER_NOT_LOADED;
    if (now.st_ino == seen.st_ino && now.st_size == seen.st_size && now.st_dev == seen.st_dev
        && now.st_mtim.tv_sec == seen.st_mtim.tv_sec && now.st_mtim.tv_nsec == seen.st_mtim.tv_nsec)
        return SUCCESS;
    FILE *file = fopen(path, "r");
    if (!file) return DRIVER_NOT_LOADED;
    static State fresh;
    memset(&fresh, 0, sizeof fresh);
    char line[256];
    while (fgets(line, sizeof line, file)) parse_line(&fresh, line);
    fclose(file);
    state = fresh;
    seen = now;
    return SUCCESS;
}

static const Rule *find_rule(const Rule *rules, int count, const char *function, int hangs) {
    for (int i = 0; i < count; i++)
        if ((rules[i].seconds > 0) == hangs
            && (!strcmp(rules[i].function, function) || !strcmp(rules[i].function, "*")))
            return &rules[i];
    return NULL;
}

static double monotonic(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec + now.tv_nsec / 1e9;
}

/* Waits, without the lock, for as long as the state says that this call hangs, at most the time it gives. */
static void hang(int index, const char *function) {
    double began = monotonic();
    for (;;) {
        pthread_mutex_lock(&lock);
        refresh();
        const Rule *rule = NULL;
        if (index >= 0 && index < state.count)
            rule = find_rule(state.devices[index].rules, state.devices[index].rule_count, function, 1);
        if (!rule) rule = find_rule(state.rules, state.rule_count, function, 1);
        int over = !rule || monotonic() - began >= rule->seconds;
        pthread_mutex_unlock(&lock);
        if (over) return;
        usleep(5000);
    }
}

/* A handle names its device and the session it was handed out in; those of an earlier session are invalid. */
static void *handle_of(int index) { return (void *)(uintptr_t)(sessions * 256u + (unsigned)index + 1u); }
static int index_of(void *handle) {
    uintptr_t value = (uintptr_t)handle - 1;
    return value / 256 == sessions && (int)(value % 256) < state.count ? (int)(value % 256) : -1;
}

/* Every call begins here. Holds the lock when it answers SUCCESS. `device` becomes the one that the handle names. */
static int begin(const char *function, void *handle, Device **device) {
    int index = -1;
    pthread_mutex_lock(&lock);
    int code = refresh();
    if (!code && handle) index = index_of(handle);
    pthread_mutex_unlock(&lock);
    if (code) return code;
    hang(index, function);
    pthread_mutex_lock(&lock);
    code = refresh();
    const Rule *rule = code ? NULL : find_rule(state.rules, state.rule_count, function, 0);
    if (rule) code = rule->code;
    else if (!code && (!initialized || initialized_start != state.start)) code = UNINITIALIZED;
    if (!code && device) {
        index = index_of(handle);
        if (index < 0) code = INVALID_ARGUMENT;
        else {
            *device = &state.devices[index];
            rule = find_rule((*device)->rules, (*device)->rule_count, function, 0);
            if (rule) code = rule->code;
        }
    }
    if (code) pthread_mutex_unlock(&lock);
    return code;
}

static int end(int code) {
    pthread_mutex_unlock(&lock);
    return code;
}

#define DEVICE_CALL Device *device; int code_ = begin(__func__, handle, &device); if (code_) return code_

static int alive(const Device *device, const Process *process) {
    return !device->reap || kill((pid_t)process->pid, 0) == 0 || errno == EPERM;
}

static unsigned long long used(const Device *device) {
    if (device->used >= 0) return (unsigned long long)device->used;
    unsigned long long sum = device->base_used;
    for (int i = 0; i < device->process_count; i++) {
        const Process *process = &device->processes[i];
        int again = 0; /* a process that both computes and draws is listed twice, and takes its memory once */
        for (int j = 0; j < i; j++) again |= device->processes[j].pid == process->pid;
        if (!again && process->bytes != NOT_AVAILABLE && alive(device, process)) sum += process->bytes;
    }
    return sum;
}

/* -- the library -- */

int nvmlInitWithFlags(unsigned flags) {
    (void)flags;
    pthread_mutex_lock(&lock);
    int code = refresh();
    pthread_mutex_unlock(&lock);
    if (code) return code;
    hang(-1, "nvmlInit");
    pthread_mutex_lock(&lock);
    code = refresh();
    const Rule *rule = code ? NULL : find_rule(state.rules, state.rule_count, "nvmlInit", 0);
    if (rule) code = rule->code;
    if (!code) {
        if (!initialized++ || initialized_start != state.start) sessions++;
        initialized_start = state.start;
    }
    return end(code);
}

int nvmlInit_v2(void) { return nvmlInitWithFlags(0); }

int nvmlShutdown(void) {
    pthread_mutex_lock(&lock);
    if (!initialized) return end(UNINITIALIZED);
    initialized--;
    return end(SUCCESS);
}

const char *nvmlErrorString(int code) {
    static char text[32];
    snprintf(text, sizeof text, "fake error %d", code);
    return text;
}

int nvmlSystemGetDriverVersion(char *out, unsigned length) {
    int code = begin(__func__, NULL, NULL);
    if (code) return code;
    snprintf(out, length, "%s", state.version);
    return end(SUCCESS);
}

int nvmlSystemGetNVMLVersion(char *out, unsigned length) { return nvmlSystemGetDriverVersion(out, length); }

static int nth_gpu(unsigned index) {
    for (int i = 0; i < state.count; i++)
        if (state.devices[i].parent < 0 && !index--) return i;
    return -1;
}

int nvmlDeviceGetCount_v2(unsigned *count) {
    int code = begin(__func__, NULL, NULL);
    if (code) return code;
    for (*count = 0; nth_gpu(*count) >= 0;) ++*count;
    return end(SUCCESS);
}

/* The rules of a device hold for getting at it as well, by whichever way. */
static int hand_out(int index, const char *function, void **handle) {
    if (index < 0) return end(NOT_FOUND);
    const Device *device = &state.devices[index];
    const Rule *rule = find_rule(device->rules, device->rule_count, function, 0);
    if (rule) return end(rule->code);
    *handle = handle_of(index);
    return end(SUCCESS);
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **handle) {
    int code = begin(__func__, NULL, NULL);
    return code ? code : hand_out(nth_gpu(index), __func__, handle);
}

int nvmlDeviceGetHandleByUUID(const char *uuid, void **handle) {
    int code = begin(__func__, NULL, NULL);
    if (code) return code;
    int index = -1;
    for (int i = 0; i < state.count; i++)
        if (!strcmp(state.devices[i].uuid, uuid)) index = i;
    return hand_out(index, __func__, handle);
}

int nvmlDeviceGetMigMode(void *handle, unsigned *current, unsigned *pending) {
    DEVICE_CALL;
    if (!device->max_instances) return end(NOT_SUPPORTED);
    *current = *pending = device->mig;
    return end(SUCCESS);
}

int nvmlDeviceGetMaxMigDeviceCount(void *handle, unsigned *count) {
    DEVICE_CALL;
    *count = device->max_instances;
    return end(SUCCESS);
}

int nvmlDeviceGetMigDeviceHandleByIndex(void *handle, unsigned instance, void **out) {
    DEVICE_CALL;
    int parent = (int)(device - state.devices);
    for (int i = 0; i < state.count; i++)
        if (state.devices[i].parent == parent && state.devices[i].instance == (int)instance)
            return hand_out(i, __func__, out);
    return end(NOT_FOUND);
}

/* -- a device -- */

int nvmlDeviceGetName(void *handle, char *out, unsigned length) {
    DEVICE_CALL;
    snprintf(out, length, "%s", device->name);
    return end(SUCCESS);
}

int nvmlDeviceGetUUID(void *handle, char *out, unsigned length) {
    DEVICE_CALL;
    snprintf(out, length, "%s", device->uuid);
    return end(SUCCESS);
}

typedef struct {
    char legacy[16];
    unsigned domain, bus, device, device_id, subsystem_id;
    char id[32];
} PciInfo;

int nvmlDeviceGetPciInfo_v3(void *handle, PciInfo *out) {
    DEVICE_CALL;
    memset(out, 0, sizeof *out);
    out->bus = device->bus;
    snprintf(out->id, sizeof out->id, "00000000:%02X:00.0", device->bus);
    return end(SUCCESS);
}

typedef struct { unsigned long long total, free, used; } Memory;
typedef struct { unsigned version; unsigned long long total, reserved, free, used; } MemoryV2;

int nvmlDeviceGetMemoryInfo(void *handle, Memory *out) {
    DEVICE_CALL;
    out->total = device->total;
    out->used = used(device) + device->reserved; /* as drivers since 510 have it */
    out->free = out->used < out->total ? out->total - out->used : 0;
    return end(SUCCESS);
}

int nvmlDeviceGetMemoryInfo_v2(void *handle, MemoryV2 *out) {
    DEVICE_CALL;
    if (out->version != (sizeof *out | 2u << 24)) return end(VERSION_MISMATCH);
    out->total = device->total;
    out->reserved = device->reserved;
    out->used = used(device);
    out->free = out->used + out->reserved < out->total ? out->total - out->used - out->reserved : 0;
    return end(SUCCESS);
}

typedef struct { unsigned gpu, memory; } Utilization;

int nvmlDeviceGetUtilizationRates(void *handle, Utilization *out) {
    DEVICE_CALL;
    if (device->parent >= 0) return end(NOT_SUPPORTED); /* a real driver does not tell of an instance either */
    out->gpu = device->gpu_load;
    out->memory = device->memory_load;
    return end(SUCCESS);
}

int nvmlDeviceGetPowerUsage(void *handle, unsigned *out) {
    DEVICE_CALL;
    *out = device->milliwatts;
    return end(SUCCESS);
}

int nvmlDeviceGetEnforcedPowerLimit(void *handle, unsigned *out) {
    DEVICE_CALL;
    *out = device->limit_milliwatts;
    return end(SUCCESS);
}

int nvmlDeviceGetTemperature(void *handle, unsigned sensor, unsigned *out) {
    DEVICE_CALL;
    *out = device->celsius;
    return end(sensor ? INVALID_ARGUMENT : SUCCESS);
}

int nvmlDeviceGetClockInfo(void *handle, unsigned kind, unsigned *out) {
    DEVICE_CALL;
    *out = device->megahertz;
    return end(kind == 1 ? SUCCESS : INVALID_ARGUMENT);
}

typedef struct { unsigned pid; unsigned long long bytes; unsigned gpu_instance, compute_instance; } ProcessInfo;

static int list(const Device *device, char kind, unsigned *count, ProcessInfo *out) {
    unsigned found = 0, room = *count;
    for (int i = 0; i < device->process_count; i++) {
        const Process *process = &device->processes[i];
        if (process->kind != kind || !alive(device, process)) continue;
        if (out && found < room) out[found] = (ProcessInfo){process->pid, process->bytes, ~0u, ~0u};
        found++;
    }
    *count = found;
    return end(found > room ? INSUFFICIENT_SIZE : SUCCESS);
}

int nvmlDeviceGetComputeRunningProcesses_v3(void *handle, unsigned *count, ProcessInfo *out) {
    DEVICE_CALL;
    return list(device, 'C', count, out);
}

int nvmlDeviceGetGraphicsRunningProcesses_v3(void *handle, unsigned *count, ProcessInfo *out) {
    DEVICE_CALL;
    return list(device, 'G', count, out);
}

int nvmlDeviceGetMPSComputeRunningProcesses_v3(void *handle, unsigned *count, ProcessInfo *out) {
    DEVICE_CALL;
    return list(device, 'M', count, out);
}
