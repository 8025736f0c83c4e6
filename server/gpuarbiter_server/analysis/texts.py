"""What the rules say, in each language.

Law: every reason names the figures that it rests on; every language has every rule and every doubt (a test says so).
"""

from enum import Enum, auto

from gpuarbiter_server.analysis.model import Language, Part


class Rule(Enum):
    """Which rule fits."""

    BLIND = auto()
    BLIND_AND_LOW = auto()
    SPINS = auto()
    OCCUPIED = auto()
    UNKNOWN_OCCUPANT = auto()
    HELD = auto()
    FREE = auto()
    STOPPED = auto()
    STARTED = auto()
    BURSTS = auto()
    LITTLE = auto()
    VARIES = auto()
    WORKS = auto()


class Doubt(Enum):
    """Why a judgement is less sure than it could be."""

    MISSING = auto()
    HOLES = auto()
    NEW_HOLDER = auto()


JOINT = {Language.ENGLISH: " ", Language.CHINESE: ""}
COMMA = {Language.ENGLISH: ", ", Language.CHINESE: "、"}
HOLDER = {Language.ENGLISH: "its holder", Language.CHINESE: "持有者"}

UNITS = {Language.ENGLISH: (" min", " s"), Language.CHINESE: (" 分钟", " 秒")}

PARTS = {
    Language.ENGLISH: {
        Part.UTILIZATION: "utilization",
        Part.MEMORY_BANDWIDTH: "memory bandwidth",
        Part.MEMORY: "memory used",
        Part.POWER: "power or its limit",
    },
    Language.CHINESE: {
        Part.UTILIZATION: "利用率",
        Part.MEMORY_BANDWIDTH: "显存带宽",
        Part.MEMORY: "显存用量",
        Part.POWER: "功率或功率上限",
    },
}

DOUBTS = {
    Language.ENGLISH: {
        Doubt.MISSING: "Not known: {missing}; the score is made of the rest.",
        Doubt.HOLES: "There are samples of {coverage} of the window only.",
        Doubt.NEW_HOLDER: "But {who} has had it for {held} only.",
    },
    Language.CHINESE: {
        Doubt.MISSING: "未知：{missing}；评分仅由其余部分计算。",
        Doubt.HOLES: "窗口内仅有 {coverage} 的采样。",
        Doubt.NEW_HOLDER: "但{who}持有它仅 {held}。",
    },
}

RULES = {
    Language.ENGLISH: {
        Rule.BLIND: (
            "The utilization is not known; what is known gives a score of {score}.",
            "Let the source tell the utilization before anything is decided by this.",
        ),
        Rule.BLIND_AND_LOW: (
            "The utilization is not known; what is known gives a score of {score} only.",
            "Let the source tell the utilization before anything is decided by this.",
        ),
        Rule.SPINS: (
            "It shows {mean} utilization but draws {power} of its power limit, as an idle GPU does: something spins.",
            "Ask {who} to look at what its kernels do: busy waiting, and data that comes too slowly, look like this.",
        ),
        Rule.OCCUPIED: (
            "{memory} of memory have been held for {span} without any work.",
            "Ask {who} whether it still needs the GPU; let it unload its model, or release the lease between requests.",
        ),
        Rule.UNKNOWN_OCCUPANT: (
            "{memory} of memory have been in use for {span} without any work, and nobody is known to hold the GPU.",
            "Look for processes that were left behind (nvidia-smi lists them), and for work that takes no lease.",
        ),
        Rule.HELD: (
            "It is held, but has done no work for {span}, and has next to nothing in its memory.",
            "Ask {who} to release the GPU, and to take it only when there is work.",
        ),
        Rule.FREE: (
            "Nobody is known to hold it, and it has done no work for {span}.",
            "It is free: give it to whoever waits.",
        ),
        Rule.STOPPED: (
            "It worked before, up to {highest}, but has done nothing for the last {quiet}.",
            "If {who} has finished, the GPU can be released.",
        ),
        Rule.STARTED: (
            "It was quiet at first and works now, at {recent}.",
            "Nothing to do: the score rises with the next runs.",
        ),
        Rule.BURSTS: (
            "It works in bursts: {busy} of {steps} steps were busy, up to {highest}; the mean is {mean}.",
            "Share the GPU between several such jobs, or hold a lease for the bursts only.",
        ),
        Rule.LITTLE: (
            "It works steadily but little: {mean} on average, {highest} at most.",
            "Share the GPU, give the job larger batches, or move it to a smaller GPU.",
        ),
        Rule.VARIES: (
            "It works, with large swings: {mean} on average, {deviation} deviation.",
            "Look whether it waits for data; otherwise there is nothing to do.",
        ),
        Rule.WORKS: (
            "It works steadily: {mean} on average, {deviation} deviation.",
            "Nothing to do.",
        ),
    },
    Language.CHINESE: {
        Rule.BLIND: ("利用率未知；已知数据的评分为 {score}。", "请先让数据源提供利用率，再据此做决定。"),
        Rule.BLIND_AND_LOW: ("利用率未知；已知数据的评分仅为 {score}。", "请先让数据源提供利用率，再据此做决定。"),
        Rule.SPINS: (
            "利用率显示为 {mean}，但功率仅为上限的 {power}，与空闲时相当：更像是空转或等待，而不是在计算。",
            "请{who}检查其内核：忙等待或数据供给过慢都会如此。",
        ),
        Rule.OCCUPIED: (
            "占用 {memory} 显存已达 {span}，期间没有任何计算。",
            "请{who}确认是否仍需要该 GPU；可卸载模型，或在请求之间释放租约。",
        ),
        Rule.UNKNOWN_OCCUPANT: (
            "{memory} 显存被占用已达 {span}，没有任何计算，且不知由谁持有。",
            "请检查残留进程（nvidia-smi 可列出），以及未申请租约的任务。",
        ),
        Rule.HELD: (
            "已被持有，但 {span} 内没有任何计算，显存也几乎为空。",
            "请{who}释放该 GPU，有任务时再申请。",
        ),
        Rule.FREE: ("没有已知的持有者，{span} 内没有任何计算。", "该 GPU 空闲，可分配给等待者。"),
        Rule.STOPPED: (
            "此前有计算（最高 {highest}），但最近 {quiet} 没有任何计算。",
            "如果{who}已完成任务，可以释放该 GPU。",
        ),
        Rule.STARTED: ("起初空闲，现在正在计算，利用率 {recent}。", "无需处理：之后的评分会上升。"),
        Rule.BURSTS: (
            "间歇性计算：{steps} 个采样步中有 {busy} 个繁忙，最高 {highest}，平均 {mean}。",
            "可让多个此类任务共享该 GPU，或仅在计算时持有租约。",
        ),
        Rule.LITTLE: (
            "持续但少量的计算：平均 {mean}，最高 {highest}。",
            "可共享该 GPU、增大批次，或改用较小的 GPU。",
        ),
        Rule.VARIES: (
            "正在计算，但波动较大：平均 {mean}，标准差 {deviation}。",
            "请检查是否在等待数据；否则无需处理。",
        ),
        Rule.WORKS: ("稳定计算：平均 {mean}，标准差 {deviation}。", "无需处理。"),
    },
}
