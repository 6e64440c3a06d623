// Graphs of before open with the values that they mean: those of TLBVFI_Interpolator_V2 in the order of its older
// widgets, and those of any node of this pack that are stored by name. What is stored in the present order is not
// touched. `python -m tlbvfi migrate` does the same to files.

import { app } from "../../scripts/app.js";

const PAIR = "TLBVFI_Interpolator_V2";
const BEFORE = ["model_name", "times_to_interpolate", "enable_tf32", "sample_steps", "flow_scale"];
const AFTER = ["cpu_offload", "gpu_id"];
// Values that a node stored before it had a seed.
const MOST_OLD_VALUES = 8;

const isOurs = (name) => name === "FramePairSlicer" || name.startsWith("TLBVFI_");
const isNumber = (value) => typeof value === "number";
const isSwitch = (value) => typeof value === "boolean";

// The names of the values where they are in an older order, which has a number of steps fourth; else nothing.
function olderOrder(values) {
  const [, times, tf32, steps, scale] = values;
  if (!isNumber(times) || !isSwitch(tf32) || !isNumber(steps) || !isNumber(scale)) return null;
  if (isSwitch(values[5]) && isNumber(values[6])) return [...BEFORE, ...AFTER];
  if (isNumber(values[5]) && isSwitch(values[6]) && isNumber(values[7])) return [...BEFORE, "tile_size", ...AFTER];
  return null;
}

// The choice of a widget that is nearest to a number, of two equally near ones the larger.
function nearest(choices, value) {
  const farther = (best, each) => {
    const [far, near] = [Math.abs(best - value), Math.abs(each - value)];
    return near < far || (near === far && each > best) ? each : best;
  };
  return choices.reduce(farther);
}

function restore(node, stored, inputs) {
  if (!stored || typeof stored !== "object" || !node.widgets) return;
  let values = stored;
  let all = true; // whether what has no value takes its default
  if (Array.isArray(stored)) {
    const order = node.comfyClass === PAIR || node.type === PAIR ? olderOrder(stored) : null;
    if (!order) return;
    values = Object.fromEntries(order.map((name, index) => [name, stored[index]]));
    all = stored.length <= MOST_OLD_VALUES;
  }
  for (const widget of node.widgets) {
    if (Object.hasOwn(values, widget.name)) {
      const value = values[widget.name];
      const choices = widget.options?.values;
      const numbers = isNumber(value) && Array.isArray(choices) && choices.length && choices.every(isNumber);
      widget.value = numbers ? nearest(choices, value) : value;
    } else if (all || widget.name === "use_fp16") {
      const initial = inputs[widget.name]?.[1]?.default;
      if (initial !== undefined) widget.value = initial;
      else if (widget.name === "control_after_generate") widget.value = "fixed"; // as the node was without a seed
    }
  }
}

app.registerExtension({
  name: "tlbvfi.stored_values",
  beforeRegisterNodeDef(nodeType, nodeData) {
    if (!isOurs(nodeData.name)) return;
    const inputs = { ...nodeData.input?.required, ...nodeData.input?.optional };
    const configured = nodeType.prototype.onConfigure;
    nodeType.prototype.onConfigure = function (info) {
      const result = configured?.apply(this, arguments);
      restore(this, info?.widgets_values, inputs);
      return result;
    };
  },
});
