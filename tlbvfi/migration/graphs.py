"""Graphs as files of ComfyUI hold them, of both kinds, as the rules see them.

A graph of the front end has boxes, slots, links between slots, and the values of widgets by position or by name; a
graph for the API has inputs by name that are values or links. All that is not asked to be changed stays as it is.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush
from typing import Any

from ..quoting import named
from .kinds import CONTROLS, FIXED, Kind, by_name, older_pair

Json = dict[str, Any]
Id = int | str
#: What a graph in a graph gets and gives, where links begin and end.
_INPUTS, _OUTPUTS = -10, -20
#: Between a box and one beside it.
_GAP = 40
_PACK_OF_A_NODE = ("cnr_id", "aux_id", "ver")


@dataclass(frozen=True)
class Link:
    """Where a link comes from."""

    node: Id
    slot: int


@dataclass
class Report:
    """What became of a file.

    Attributes:
        lines: for the reader, one for each thing.
        changed: whether it is another one now.
        chunks: whether chunks were among what was changed.
    """

    lines: list[str] = field(default_factory=list)
    changed: bool = False
    chunks: bool = False


class Graph(ABC):
    """Nodes with inputs by name. Ids are those of the file."""

    def __init__(self, report: Report, where: str = "") -> None:
        """where: which graph of the file it is, for the report."""
        self.report, self._where, self.changed = report, where, False

    def say(self, text: str) -> None:
        """Add a line to the report."""
        self.report.lines.append(f"{self._where}{text}")

    def name(self, node: Id) -> str:
        """A node in a sentence."""
        return f"node {named(node if isinstance(node, str) else str(node))} ({named(self.key(node))})"

    def of(self, *keys: str) -> list[Id]:
        """The nodes with one of these keys."""
        return [node for node in self.nodes() if self.key(node) in keys]

    @abstractmethod
    def nodes(self) -> list[Id]:
        """All nodes."""

    @abstractmethod
    def key(self, node: Id) -> str:
        """Of a node's class; empty where there is no such node."""

    @abstractmethod
    def inputs(self, node: Id) -> Json:
        """What a node gets, by name: values of widgets, and a :class:`Link` where there is one."""

    @abstractmethod
    def is_older(self, node: Id) -> bool:
        """Whether a node of a present key is stored in an older way."""

    @abstractmethod
    def users(self, node: Id) -> list[tuple[int, Id, str]]:
        """Where the outputs of a node go: slot, node, name of the input."""

    @abstractmethod
    def is_used(self, node: Id) -> bool:
        """Whether an output of a node goes anywhere."""

    def exposed(self, node: Id) -> set[str]:
        """Widgets of a node that are shown on the box of the graph which it is in."""
        return set()

    def origin(self, link: Any) -> Any:
        """A link's begin, behind all nodes that only pass it on; anything else as it is."""
        seen: set[Id] = set()
        while isinstance(link, Link) and self.key(link.node) == "Reroute" and link.node not in seen:
            seen.add(link.node)
            before = next((each for each in self.inputs(link.node).values() if isinstance(each, Link)), None)
            if before is None:
                break
            link = before
        return link

    @abstractmethod
    def replace(self, node: Id, kind: Kind, inputs: Json, outputs: Mapping[int, int] | None) -> None:
        """Have another node stand in the place of one, under its id.

        Args:
            inputs: of the new one; others have their defaults.
            outputs: which output of the new one goes where one of the old one went; the others' links are cut. None:
                all go on as they are.
        """

    @abstractmethod
    def add(self, kind: Kind, inputs: Json, beside: Id) -> Id:
        """A new node, beside another one."""

    @abstractmethod
    def remove(self, node: Id) -> None:
        """Take a node away, with its links."""

    @abstractmethod
    def settle(self) -> None:
        """Put the file in order when all that is to be changed is."""

    def _values(self, kind: Kind, inputs: Json) -> Json:
        """The values of a node's widgets by name."""
        values = {each.name: each.default for each in kind.inputs if each.widget}
        names = set(values)
        sockets = {each.name for each in kind.inputs if not each.widget}
        return values | {
            name: value
            for name, value in inputs.items()
            if not isinstance(value, Link) and name not in sockets and (name in names or kind.by_name)
        }


class ApiGraph(Graph):
    """A graph for ComfyUI's API: id -> class and inputs."""

    def __init__(self, graph: Json, report: Report) -> None:
        super().__init__(report)
        self._graph = graph
        numbers = [int(each) for each in graph if each.isascii() and each.isdigit() and len(each) < 16]
        self._last = max(numbers, default=0)
        #: Where a node's outputs may go.
        self._users: dict[str, dict[tuple[str, str], None]] = {}
        for node in graph:
            self._know(node)

    def nodes(self) -> list[Id]:
        return list(self._graph)

    def key(self, node: Id) -> str:
        return str(self._graph.get(str(node), {}).get("class_type", ""))

    def inputs(self, node: Id) -> Json:
        stored = self._graph[str(node)].get("inputs")
        if not isinstance(stored, dict):
            return {}
        return {name: _api_link(value) or value for name, value in stored.items()}

    def is_older(self, node: Id) -> bool:
        inputs = self.inputs(node)
        return "tile_size" in inputs or not {"use_fp16", "seed"} <= set(inputs)

    def users(self, node: Id) -> list[tuple[int, Id, str]]:
        known = self._users.get(str(node), {})
        return [(self._slot(*use), *use) for use in list(known) if self._is_use(node, *use)]

    def is_used(self, node: Id) -> bool:
        known = self._users.get(str(node), {})
        while known:
            use = next(iter(known))
            if self._is_use(node, *use):
                return True
            del known[use]
        return False

    def _is_use(self, node: Id, user: str, name: str) -> bool:
        """Whether an input still comes from a node."""
        inputs = self._graph.get(user, {}).get("inputs")
        link = _api_link(inputs.get(name)) if isinstance(inputs, dict) else None
        return link is not None and link.node == str(node)

    def _slot(self, user: str, name: str) -> int:
        return int(self._graph[user]["inputs"][name][1])

    def _know(self, node: str) -> None:
        """Take note of where a node's inputs come from."""
        for name, link in self.inputs(node).items():
            if isinstance(link, Link):
                self._users.setdefault(str(link.node), {})[node, name] = None

    def replace(self, node: Id, kind: Kind, inputs: Json, outputs: Mapping[int, int] | None) -> None:
        self.changed = self.report.changed = True
        entry = self._graph[str(node)]
        for slot, user, name in self.users(node):
            if outputs is None or slot in outputs:
                self._graph[str(user)]["inputs"][name] = [str(node), slot if outputs is None else outputs[slot]]
            else:
                del self._graph[str(user)]["inputs"][name]
        entry["class_type"], entry["inputs"] = kind.key, self._stored(kind, inputs)
        self._know(str(node))

    def add(self, kind: Kind, inputs: Json, beside: Id) -> Id:
        self.changed = self.report.changed = True
        self._last += 1
        node = str(self._last)
        self._graph[node] = {"class_type": kind.key, "inputs": self._stored(kind, inputs)}
        self._know(node)
        return node

    def remove(self, node: Id) -> None:
        self.changed = self.report.changed = True
        for _, user, name in self.users(node):
            del self._graph[str(user)]["inputs"][name]
        del self._graph[str(node)]

    def settle(self) -> None:
        pass

    def _stored(self, kind: Kind, inputs: Json) -> Json:
        links = {name: [value.node, value.slot] for name, value in inputs.items() if isinstance(value, Link)}
        known = {each.name for each in kind.inputs}
        values = self._values(kind, inputs)
        values.pop("control_after_generate", None)
        return values | {name: link for name, link in links.items() if name in known}


def _api_link(value: Any) -> Link | None:
    if isinstance(value, list) and len(value) == 2 and isinstance(value[0], (str, int)) and type(value[1]) is int:
        return Link(str(value[0]), value[1])
    return None


class Ids:
    """New numbers for nodes and links, which no graph of the file has."""

    def __init__(self) -> None:
        self.node = self.link = 0

    def seen(self, scope: Json) -> None:
        """Take note of those of a graph."""
        counts = [scope, *(each for each in [scope.get("state")] if isinstance(each, dict))]
        known = [count.get(name) for count in counts for name in ("last_node_id", "lastNodeId")]
        self.node = max(self.node, *map(_number, known), *(_number(node.get("id")) for node in scope["nodes"]))
        known = [count.get(name) for count in counts for name in ("last_link_id", "lastLinkId")]
        wires = (wire for raw in scope["links"] if (wire := Wire.of(raw)) is not None)
        self.link = max(self.link, *map(_number, known), *(_number(wire.id) for wire in wires))


def _number(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and value < 2**53 else 0


class Wire:
    """A link of a graph of the front end, a list or an object, as it is in the file."""

    _NAMES = ("id", "origin_id", "origin_slot", "target_id", "target_slot", "type")

    def __init__(self, raw: Any) -> None:
        self.raw = raw

    @staticmethod
    def of(raw: Any) -> Wire | None:
        """None for what is no link."""
        if isinstance(raw, list) and len(raw) >= 5:
            ends = raw[:5]
        elif isinstance(raw, dict) and all(name in raw for name in Wire._NAMES[:5]):
            ends = [raw[name] for name in Wire._NAMES[:5]]
        else:
            return None
        ids_are = all(isinstance(each, (int, str)) for each in (ends[0], ends[1], ends[3]))
        slots_are = all(type(each) is int for each in (ends[2], ends[4]))
        return Wire(raw) if ids_are and slots_are else None

    @staticmethod
    def new(like_objects: bool, *values: Any) -> Wire:
        return Wire(dict(zip(Wire._NAMES, values, strict=True)) if like_objects else list(values))

    def _get(self, place: int) -> Any:
        return self.raw[place] if isinstance(self.raw, list) else self.raw[self._NAMES[place]]

    def set(self, place: int, value: Any) -> None:
        """0: id, 1 and 2: node and slot where it begins, 3 and 4: where it ends, 5: type."""
        if isinstance(self.raw, dict):
            self.raw[self._NAMES[place]] = value
        elif place < len(self.raw):
            self.raw[place] = value

    @property
    def id(self) -> Id:
        return self._get(0)

    @property
    def source(self) -> Link:
        return Link(self._get(1), self._get(2))

    @property
    def target(self) -> tuple[Id, int]:
        return self._get(3), self._get(4)


class UiGraph(Graph):
    """A graph of the front end, or one inside such a graph."""

    def __init__(self, scope: Json, ids: Ids, report: Report, where: str = "", exposed: Mapping[str, set[str]] = {}):
        """exposed: widgets on the box of this graph, by node."""
        super().__init__(report, where)
        self._scope, self._ids, self._exposed = scope, ids, exposed
        self.id = str(scope.get("id"))
        self._nodes: dict[Id, Json] = {node["id"]: node for node in scope["nodes"]}
        self._wires = {wire.id: wire for raw in scope["links"] if (wire := Wire.of(raw)) is not None}
        self._going: dict[Id, dict[Id, Wire]] = {}
        for wire in self._wires.values():
            self._going.setdefault(wire.source.node, {})[wire.id] = wire
        self._gone: set[Id] = set()
        #: Widgets of nodes that are others now, or gone.
        self.widgets: dict[str, set[str]] = {}
        self._last_order = max((_number(node.get("order")) for node in scope["nodes"]), default=-1)
        self._as_objects = "last_link_id" not in scope or any(isinstance(raw, dict) for raw in scope["links"])

    def nodes(self) -> list[Id]:
        return list(self._nodes)

    def key(self, node: Id) -> str:
        return str(self._nodes.get(node, {}).get("type", ""))

    def exposed(self, node: Id) -> set[str]:
        return self._exposed.get(str(node), set())

    def inputs(self, node: Id) -> Json:
        box = self._nodes[node]
        slots = _slots(box, "inputs")
        stored = box.get("widgets_values")
        if isinstance(stored, list):
            linked_only = {slot["name"] for slot in slots if "widget" not in slot and isinstance(slot.get("name"), str)}
            values = by_name(self.key(node), stored, linked_only)
        else:
            values = dict(stored) if isinstance(stored, dict) else {}
        return values | {str(name): wire.source for name, wire in self._incoming(box)}

    def is_older(self, node: Id) -> bool:
        stored = self._nodes[node].get("widgets_values")
        return isinstance(stored, dict) or (isinstance(stored, list) and older_pair(stored) is not None)

    def users(self, node: Id) -> list[tuple[int, Id, str]]:
        found = []
        for wire in self._outgoing(node):
            target, into = wire.target
            slots = _slots(self._nodes.get(target, {}), "inputs")
            found.append((wire.source.slot, target, str(slots[into].get("name")) if 0 <= into < len(slots) else ""))
        return found

    def is_used(self, node: Id) -> bool:
        return bool(self._going.get(node))

    def replace(self, node: Id, kind: Kind, inputs: Json, outputs: Mapping[int, int] | None) -> None:
        self.changed = self.report.changed = True
        box = self._nodes[node]
        before = [wire for _, wire in self._incoming(box)]
        for wire in self._outgoing(node):
            slot = wire.source.slot
            if outputs is None or slot in outputs:
                wire.set(2, slot if outputs is None else outputs[slot])
            else:
                self._cut(wire)
        if box.get("title") == box["type"]:
            del box["title"]
        properties = box["properties"] if isinstance(box.get("properties"), dict) else {}
        if box["type"] != kind.key:
            box["size"] = list(kind.size)
            properties = {name: value for name, value in properties.items() if name not in _PACK_OF_A_NODE}
        self._fill(box, kind, inputs, properties)
        self._link(box, inputs, before)

    def add(self, kind: Kind, inputs: Json, beside: Id) -> Id:
        self.changed = self.report.changed = True
        self._ids.node += 1
        node, other = self._ids.node, self._nodes[beside]
        self._last_order += 1
        box: Json = {
            "id": node, "type": kind.key, "pos": _beside(other), "size": list(kind.size), "flags": {},
            "order": self._last_order, "mode": other.get("mode", 0),
        }  # fmt: skip
        self._fill(box, kind, inputs, {})
        self._nodes[node] = box
        self._scope["nodes"].append(box)
        self._link(box, inputs, [])
        _count(self._scope, ("last_node_id", "lastNodeId"), node)
        return node

    def remove(self, node: Id) -> None:
        self.changed = self.report.changed = True
        box = self._nodes[node]
        for wire in [wire for _, wire in self._incoming(box)] + self._outgoing(node):
            self._cut(wire)
        del self._nodes[node]
        self.widgets[str(node)] = set()

    def settle(self) -> None:
        """Lists of nodes and links without those that are gone, and an order in which nodes can run."""
        if not self.changed:
            return
        self._scope["nodes"][:] = list(self._nodes.values())
        left = {id(wire.raw) for wire in self._wires.values()}
        self._scope["links"][:] = [raw for raw in self._scope["links"] if Wire.of(raw) is None or id(raw) in left]
        inner = [self._scope.get("inputs"), self._scope.get("outputs")]
        edges = [slot for side in inner if isinstance(side, list) for slot in side if isinstance(slot, dict)]
        outputs = [slot for box in self._nodes.values() for slot in _slots(box, "outputs")]
        for slots, name in ((edges, "linkIds"), (outputs, "links")):
            for slot in slots:
                if isinstance(known := slot.get(name), list) and any(map(self._is_gone, known)):
                    slot[name] = [each for each in known if not self._is_gone(each)]
        extra = self._scope.get("extra")
        for holder in [self._scope, *([extra] if isinstance(extra, dict) else [])]:
            for reroute in holder["reroutes"] if isinstance(holder.get("reroutes"), list) else []:
                if isinstance(reroute, dict) and isinstance(reroute.get("linkIds"), list):
                    reroute["linkIds"] = [each for each in reroute["linkIds"] if not self._is_gone(each)]
            if isinstance(known := holder.get("linkExtensions"), list):
                holder["linkExtensions"] = [
                    each for each in known if not (isinstance(each, dict) and self._is_gone(each.get("id")))
                ]
        self._put_in_order()

    def _is_gone(self, number: Any) -> bool:
        return isinstance(number, (int, str)) and number in self._gone

    def _put_in_order(self) -> None:
        """Number the nodes such that links lead forward, as they were numbered otherwise."""
        places = {node: box.get("order") for node, box in self._nodes.items()}
        if not all(isinstance(place, int) for place in places.values()):
            return
        waits = dict.fromkeys(places, 0)
        leads: dict[Id, list[Id]] = {}
        for wire in self._wires.values():
            source, target = wire.source.node, wire.target[0]
            if source in places and target in places:
                leads.setdefault(source, []).append(target)
                waits[target] += 1
        ready = [(place, index, node) for index, (node, place) in enumerate(places.items()) if not waits[node]]
        heapify(ready)
        indices = {node: index for index, node in enumerate(places)}
        ordered = []
        while ready:
            node = heappop(ready)[2]
            ordered.append(node)
            for target in leads.get(node, ()):
                waits[target] -= 1
                if not waits[target]:
                    heappush(ready, (places[target], indices[target], target))
        if len(ordered) == len(places):  # no circle
            for place, node in enumerate(ordered):
                self._nodes[node]["order"] = place

    def _incoming(self, box: Json) -> Iterator[tuple[Any, Wire]]:
        for slot in _slots(box, "inputs"):
            number = slot.get("link")
            wire = self._wires.get(number) if isinstance(number, (int, str)) else None
            if wire is not None:
                yield slot.get("name"), wire

    def _outgoing(self, node: Id) -> list[Wire]:
        return list(self._going.get(node, {}).values())

    def _fill(self, box: Json, kind: Kind, inputs: Json, properties: Json) -> None:
        """Slots and values of a box."""
        box["type"] = kind.key
        self.widgets[str(box["id"])] = {each.name for each in kind.inputs if each.widget}
        sockets = [each for each in kind.inputs if not each.widget]
        box["inputs"] = [
            {"name": each.name, **({"shape": 7} if each.optional else {}), "type": each.type, "link": None}
            if not each.widget
            else {
                "name": each.name, **({"shape": 7} if each.optional else {}), "type": each.type,
                "widget": {"name": each.name}, "link": None,
            }
            for each in (*sockets, *(each for each in kind.inputs if each.widget))
        ]  # fmt: skip
        going = self._outgoing(box["id"])
        box["outputs"] = [
            {"name": name, "type": type, "links": [wire.id for wire in going if wire.source.slot == slot]}
            for slot, (name, type) in enumerate(kind.outputs)
        ]
        pack = {"cnr_id": kind.pack} if kind.pack is not None else {}
        box["properties"] = {**properties, "Node name for S&R": kind.key, **pack}
        values = self._values(kind, inputs)
        control = inputs.get("control_after_generate")
        control = control if control in CONTROLS else FIXED
        stored: list[Any] = []
        for name, value in values.items():
            stored += [value, control] if name == "seed" else [value]
        box["widgets_values"] = values if kind.by_name else stored

    def _link(self, box: Json, inputs: Json, before: Sequence[Wire]) -> None:
        """Link a box's inputs: by links that ended there before, where they come from the same place."""
        left = list(before)
        for place, slot in enumerate(box["inputs"]):
            source = inputs.get(slot["name"])
            if not isinstance(source, Link):
                continue
            wire = next((each for each in left if each.source == source), None)
            if wire is None:
                self._ids.link += 1
                values = self._ids.link, source.node, source.slot, box["id"], place, slot["type"]
                wire = Wire.new(self._as_objects, *values)
                self._wires[wire.id] = wire
                self._going.setdefault(source.node, {})[wire.id] = wire
                self._scope["links"].append(wire.raw)
                self._ends_of(source, wire.id)
                _count(self._scope, ("last_link_id", "lastLinkId"), self._ids.link)
            else:
                left.remove(wire)
                wire.set(4, place)
                wire.set(5, slot["type"])
            slot["link"] = wire.id
        for wire in left:
            self._cut(wire)

    def _ends_of(self, source: Link, number: Id) -> None:
        """Have the output that a new link comes from know of it."""
        if source.node == _INPUTS:
            places, name = self._scope.get("inputs"), "linkIds"
        else:
            places, name = _slots(self._nodes.get(source.node, {}), "outputs"), "links"
        if isinstance(places, list) and 0 <= source.slot < len(places) and isinstance(places[source.slot], dict):
            slot = places[source.slot]
            if not isinstance(slot.get(name), list):
                slot[name] = []
            slot[name].append(number)

    def _cut(self, wire: Wire) -> None:
        """Take a link away; :meth:`settle` has all else that knows of it forget it."""
        self._wires.pop(wire.id, None)
        self._going.get(wire.source.node, {}).pop(wire.id, None)
        self._gone.add(wire.id)
        for slot in _slots(self._nodes.get(wire.target[0], {}), "inputs"):
            if slot.get("link") == wire.id:
                slot["link"] = None


def _slots(box: Json, side: str) -> list[Json]:
    """The inputs or outputs of a box; what is no slot as an empty one, so that the others keep their places."""
    found = box.get(side)
    return [slot if isinstance(slot, dict) else {} for slot in found] if isinstance(found, list) else []


def _beside(box: Json) -> list[float]:
    """The place right of a box."""
    place, size = (_two(box.get(name)) for name in ("pos", "size"))
    return [place[0] + (size[0] or 300) + _GAP, place[1]]


def _two(value: Any) -> tuple[float, float]:
    """Two numbers of a list, or of an object as typed arrays were once stored."""
    if isinstance(value, dict):
        value = [value.get("0"), value.get("1")]
    if isinstance(value, list) and len(value) >= 2 and all(type(each) in (int, float) for each in value[:2]):
        return value[0], value[1]
    return 0, 0


def _count(scope: Json, names: tuple[str, str], number: int) -> None:
    """Raise a graph's counter."""
    state = scope.get("state")
    for holder, name in ((scope, names[0]), (state if isinstance(state, dict) else {}, names[1])):
        if name in holder:
            holder[name] = max(_number(holder[name]), number)
