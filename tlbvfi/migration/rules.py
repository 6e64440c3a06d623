"""What stands for each older node."""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Any

from ..numbers import frame_rate
from ..quoting import named, quoted
from .graphs import Graph, Id, Json, Link
from .kinds import (
    COMBINE_KIND,
    FORMATS,
    JOINERS,
    OLD_BATCH,
    OLD_PAIR,
    OLD_SLICER,
    OLD_VIDEO,
    PAIR,
    PAIR_KIND,
    PROCESSOR,
    SAVER,
    SLICER,
    SLICER_KIND,
    VIDEO_KIND,
    Kind,
    nearest_steps,
)

#: How often a gap was halved, at most.
_MAX_TIMES = 4
#: Settings that older and present nodes have under the same names.
_SAME = ("model_name", "use_fp16", "enable_tf32", "cpu_offload", "gpu_id", "seed", "compile")
_SUFFIX = re.compile(r"\.(mp4|m4v|mov|mkv|webm|avi|gif)\Z", re.IGNORECASE)
#: Outputs of the slicer.
_PAIR_SLOT, _FIRST_SLOT, _SECOND_SLOT = 0, 4, 5


def apply(graph: Graph) -> None:
    """Have present nodes stand for all older ones for which there are any."""
    joined = _joined(graph)
    for node in graph.of(SAVER):
        _saver(graph, node, joined.get(node))
    for node in graph.of(PROCESSOR):
        _processor(graph, node, joined.get(node))
    for node in graph.of(OLD_VIDEO, OLD_BATCH):
        _video(graph, node)
    for node in graph.of(OLD_SLICER):
        graph.say(f"{_named(graph, node)} is now {SLICER}.")
        graph.replace(node, SLICER_KIND, _fitting(graph, node, SLICER_KIND, graph.inputs(node)), None)
    for node in graph.of(PAIR):
        if graph.is_older(node):
            _pair(graph, node)


def joiners_left(graph: Graph) -> None:
    """What becomes of nodes that join chunks which none in this graph makes, after :func:`apply` for all graphs."""
    for node in _joiners(graph):
        if isinstance(graph.inputs(node).get("session_id"), Link) or graph.report.chunks:
            graph.say(f"{_named(graph, node)} is taken out: there are no chunks to join any more.")
            graph.remove(node)
        else:
            graph.say(f"{_named(graph, node)} stays: the graph does not make the chunks of its session; remove it.")


def _named(graph: Graph, node: Id) -> str:
    name = graph.name(node)
    return name[0].upper() + name[1:]


def _pair(graph: Graph, node: Id) -> None:
    """Values of an older order, or by name, in the present order."""
    inputs = graph.inputs(node)
    if "sample_steps" in inputs and not isinstance(inputs["sample_steps"], Link):
        inputs["sample_steps"] = _steps(graph, node, inputs["sample_steps"])
    if inputs.get("tile_size"):
        graph.say(f"{_named(graph, node)} has no tile_size any more: what does not fit is evaluated in strips.")
    graph.say(f"{_named(graph, node)} has its values in the present order.")
    graph.replace(node, PAIR_KIND, _fitting(graph, node, PAIR_KIND, inputs), None)


def _steps(graph: Graph, node: Id, value: Any) -> int:
    steps = nearest_steps(value)
    if steps != value:
        graph.say(f"{_named(graph, node)}: sample_steps {quoted(value)} is {steps} now, the nearest that there is.")
    return steps


def _fitting(graph: Graph, node: Id, kind: Kind, inputs: Json) -> Json:
    """The inputs without values that the node cannot have, which is said."""
    found = {}
    for name, value in inputs.items():
        if isinstance(value, Link) or kind.fit(name, value):
            found[name] = value
        else:
            graph.say(f"{_named(graph, node)}: {name} {quoted(value)} is not possible and has its default now.")
    return found


def _halvings(value: Any, lowest: int = 1) -> int | None:
    """How often each gap is halved; None where that is not known here."""
    fits = isinstance(value, int) and not isinstance(value, bool) and lowest <= value <= _MAX_TIMES
    return max(value, 1) if fits else None


def _settings(graph: Graph, node: Id, inputs: Json) -> Json:
    """The settings of an older node as the video node has them."""
    found = {name: inputs[name] for name in _SAME if name in inputs}
    if "sample_steps" in inputs or "flow_scale" in inputs:
        found["quality"] = "custom"
        found |= {name: inputs[name] for name in ("sample_steps", "flow_scale") if name in inputs}
        if "sample_steps" in found and not isinstance(found["sample_steps"], Link):
            found["sample_steps"] = _steps(graph, node, found["sample_steps"])
    return found


def _video(graph: Graph, node: Id) -> None:
    """A node for whole videos, where the present one does exactly the same."""
    batch = graph.key(node) == OLD_BATCH
    inputs = graph.inputs(node)
    times = _halvings(inputs.get("times_to_interpolate", 1), 0 if batch else 1)
    hidden = {"times_to_interpolate", "include_source_frames"} & graph.exposed(node)
    if times is None or hidden or inputs.get("include_source_frames", True) is not True:
        graph.say(f"{_named(graph, node)} stays, as the present node has no such input; it goes on working.")
        return
    graph.say(f"{_named(graph, node)} is now {VIDEO_KIND.key} with the multiplier {2**times}.")
    wanted = {"multiplier": 2**times, **_settings(graph, node, inputs)}
    wanted |= {"images": inputs["images"]} if "images" in inputs else {}
    graph.replace(node, VIDEO_KIND, _fitting(graph, node, VIDEO_KIND, wanted), {0: 0, 1: 2})


def _processor(graph: Graph, node: Id, joiner: Id | None) -> None:
    """A node that made chunks of a whole video: the video node, and one that saves what it gives."""
    graph.report.chunks = True
    inputs = graph.inputs(node)
    times = _halvings(inputs.get("times_to_interpolate", 1))
    if times is None:
        graph.say(f"{_named(graph, node)}: how often the rate doubles is not stored here; the multiplier is 2, set it.")
    multiplier = 2 ** (times or 1)
    wanted = {"multiplier": multiplier, **_settings(graph, node, inputs)}
    wanted |= {"images": inputs["images"]} if isinstance(inputs.get("images"), Link) else {}
    fps = _rate(graph, node, inputs.get("fps", 30))
    if not isinstance(fps, Link):
        wanted["source_fps"] = str(frame_rate("fps", fps) / multiplier)
    saving = {"images": Link(node, 0), "frame_rate": fps, **_coding(graph, node, inputs, inputs.get("crf"))}
    name = _named(graph, node)
    _say_what_is_cut(graph, node)
    graph.replace(node, VIDEO_KIND, _fitting(graph, node, VIDEO_KIND, wanted), {})
    if joiner is None:
        saver = graph.add(COMBINE_KIND, saving, node)
    else:
        saver, saving = joiner, saving | _file_name(graph, joiner)
        graph.say(f"{_named(graph, joiner)} is now {COMBINE_KIND.key}, which saves the whole video.")
        graph.replace(joiner, COMBINE_KIND, _fitting(graph, joiner, COMBINE_KIND, saving), {})
    graph.say(f"{name} is now {VIDEO_KIND.key}, and {graph.name(saver)} saves its frames.")


def _saver(graph: Graph, node: Id, joiner: Id | None) -> None:
    """A node that saved the chunk of a pair: one that saves the whole video, which the video node makes."""
    graph.report.chunks = True
    inputs = graph.inputs(node)
    images = inputs.get("frames")
    pair = _pair_of_a_video(graph, images)
    name = _named(graph, node)
    saving = {"frame_rate": _rate(graph, node, inputs.get("fps", 30))}
    saving |= _coding(graph, node, inputs, inputs.get("quality"))
    if inputs.get("source_video_path"):
        graph.say(f"{name}: link the sound of source_video_path to audio of {COMBINE_KIND.key}.")
    if joiner is not None:
        saving |= _file_name(graph, joiner)
        graph.say(f"{_named(graph, joiner)} is taken out: {COMBINE_KIND.key} saves the whole video.")
        graph.remove(joiner)
    _say_what_is_cut(graph, node)
    if isinstance(images, Link):
        saving["images"] = images
    graph.replace(node, COMBINE_KIND, _fitting(graph, node, COMBINE_KIND, saving), {})
    graph.say(f"{name} is now {COMBINE_KIND.key}.")
    if pair is not None:
        _whole_video(graph, node, *pair)


def _pair_of_a_video(graph: Graph, images: Any) -> tuple[Id, Id, int] | None:
    """The interpolator of a pair that images come from, the slicer before it, and how often it halves the gap."""
    origin = graph.origin(images)
    if not isinstance(origin, Link) or graph.key(origin.node) not in (OLD_PAIR, PAIR):
        return None
    inputs = graph.inputs(origin.node)
    if graph.key(origin.node) == OLD_PAIR:
        names = {"frame_pair": _PAIR_SLOT}
    else:
        names = {"prev_frame": _FIRST_SLOT, "next_frame": _SECOND_SLOT}
    ends = [(graph.origin(inputs.get(name)), slot) for name, slot in names.items()]
    slicers = {end.node if isinstance(end, Link) and end.slot == slot else None for end, slot in ends}
    times = _halvings(inputs.get("times_to_interpolate", 1))
    slicer = slicers.pop()
    if slicers or slicer is None or times is None:
        return None
    known = graph.key(slicer) in (SLICER, OLD_SLICER) and isinstance(graph.inputs(slicer).get("images"), Link)
    return (origin.node, slicer, times) if known else None


def _whole_video(graph: Graph, saver: Id, pair: Id, slicer: Id, times: int) -> None:
    """Have the video node stand for the interpolator of a pair whose chunk was saved, and for the slicer before it."""
    inputs = graph.inputs(pair)
    wanted = {"multiplier": 2**times, **_settings(graph, pair, inputs)}
    if isinstance(images := graph.inputs(slicer).get("images"), Link):
        wanted["images"] = images
    wanted = _fitting(graph, pair, VIDEO_KIND, wanted)
    if all(user == saver or graph.key(user) == "Reroute" for _, user, _ in graph.users(pair)):
        graph.say(f"{_named(graph, pair)} is now {VIDEO_KIND.key}, which takes the whole video at once.")
        graph.replace(pair, VIDEO_KIND, wanted, {0: 0})
    else:
        video = graph.add(VIDEO_KIND, wanted, pair)
        graph.say(f"{_named(graph, video)} is new and takes the whole video at once.")
        graph.replace(saver, COMBINE_KIND, {**graph.inputs(saver), "images": Link(video, 0)}, {})
    if not graph.is_used(slicer):
        graph.say(f"{_named(graph, slicer)} is taken out, with what counted the pairs no longer linked to it.")
        graph.remove(slicer)


def _rate(graph: Graph, node: Id, fps: Any) -> Any:
    """Frames per second as they are saved, a number or a link; 30 where they cannot be."""
    if isinstance(fps, Link):
        return fps
    try:
        rate = frame_rate("fps", fps)
    except ValueError:
        rate = Fraction(0)
    if rate < 1 or isinstance(fps, str):
        if rate < 1:
            graph.say(f"{_named(graph, node)}: fps {quoted(fps)} is not possible; it is 30 now.")
        return float(rate) if rate >= 1 else 30
    return fps


def _coding(graph: Graph, node: Id, inputs: Json, crf: Any) -> Json:
    """Format and quality of what is saved."""
    codec = inputs.get("codec", "h264")
    text = codec.lower() if isinstance(codec, str) else ""
    card = "nvenc" in text
    known = [
        (name, extra) for words, on_card, name, extra in FORMATS if on_card == card and any(map(text.count, words))
    ]
    if not known:
        name, extra = FORMATS[-1][2:]
        shown = "that is linked" if isinstance(codec, Link) else quoted(codec)
        graph.say(f"{_named(graph, node)}: the codec {shown} is {name} now; choose the format in {COMBINE_KIND.key}.")
    else:
        name, extra = known[0]
    values = {"format": f"video/{name}", **extra, "save_metadata": True}
    if "crf" in values and isinstance(bitrate := inputs.get("bitrate"), int) and not isinstance(bitrate, bool):
        crf = bitrate
    if "crf" in values and isinstance(crf, int) and not isinstance(crf, bool) and 0 <= crf <= 100:
        values["crf"] = crf
    elif isinstance(bitrate := inputs.get("bitrate"), str):
        match = re.fullmatch(r"\s*(\d{1,6})\s*([kKmM])\w*\s*", bitrate)
        megabits = 0 if match is None else int(match[1]) / (1 if match[2] in "mM" else 1000)
        if "bitrate" in values and 1 <= megabits <= 999:
            values["bitrate"] = round(megabits)
        else:
            at = f"crf {values['crf']}" if "crf" in values else f"{values['bitrate']} Mbit/s"
            graph.say(f"{_named(graph, node)}: the bit rate {quoted(bitrate)} is {at} of {COMBINE_KIND.key} now.")
    return values


def _joiners(graph: Graph) -> list[Id]:
    """The nodes that join chunks; under the key without our name only those that look like ours."""
    return [
        node
        for node in graph.of(*JOINERS)
        if graph.key(node) == JOINERS[0] or {"session_id", "output_filename"} & set(graph.inputs(node))
    ]


def _joined(graph: Graph) -> dict[Id, Id]:
    """Nodes that make chunks, and that which joins them: linked, of the same session by name, or the only one."""
    makers, joiners = graph.of(PROCESSOR, SAVER), _joiners(graph)
    known = set(makers)
    sessions = {session: node for node in reversed(makers) if (session := _session(graph, node))}
    found: dict[Id, Id] = {}
    for joiner in joiners:
        origin, session = graph.origin(graph.inputs(joiner).get("session_id")), _session(graph, joiner)
        maker = sessions.get(session)
        if isinstance(origin, Link):
            maker = origin.node if origin.slot == 0 and origin.node in known else None
        elif not session and len(makers) == len(joiners) == 1:
            maker = makers[0]
        if maker is not None:
            found.setdefault(maker, joiner)
    return found


def _session(graph: Graph, node: Id) -> str:
    """The name of a node's session where it is typed in; else nothing."""
    session = graph.inputs(node).get("session_id")
    return session if isinstance(session, str) else ""


def _file_name(graph: Graph, joiner: Id) -> Json:
    """The name of the file, below the folder of results, as far as it is known."""
    inputs = graph.inputs(joiner)
    name, folder = inputs.get("output_filename"), inputs.get("output_dir")
    if isinstance(name, Link):
        return {"filename_prefix": name}
    if isinstance(folder, Link):
        graph.say(f"{_named(graph, joiner)}: output_dir was linked; the video is saved in the folder of results.")
    parts = _parts(_SUFFIX.sub("", name) if isinstance(name, str) else "")
    if isinstance(folder, str) and folder.strip():
        if re.match(r"\s*([/\\~]|[A-Za-z]:)", folder) or ".." in _pieces(folder):
            said = f"the video is saved in the folder of results, not in {quoted(folder)}"
            graph.say(f"{_named(graph, joiner)}: {said}.")
        else:
            within = _parts(folder)
            parts = [*(within[1:] if within[:1] == ["output"] else within), *(parts or ["tlbvfi"])]
    return {"filename_prefix": "/".join(parts)} if parts else {}


def _pieces(path: str) -> list[str]:
    return re.split(r"[/\\]+", path.strip())


def _parts(path: str) -> list[str]:
    """The parts of a name below a folder, without those that lead out of it."""
    return [each for each in _pieces(path) if each not in ("", ".", "..") and not re.fullmatch(r"[A-Za-z]:", each)]


def _say_what_is_cut(graph: Graph, node: Id) -> None:
    """Say where the outputs of a node that makes chunks went, apart from others of the kind."""
    for _, user, name in graph.users(node):
        if graph.key(user) not in (PROCESSOR, SAVER, *JOINERS, ""):
            which = named(name) if name else "an input"
            graph.say(f"{_named(graph, user)}: {which} is no longer linked; it came from the chunks.")
