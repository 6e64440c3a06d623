"""A pack for the test ComfyUI that does with prompts what VideoHelperSuite's Meta Batch Manager does.

`VHS_BatchManager` is one object for all batches. `LoadInBatches` takes frames from a generator that stays with it and
looks one frame ahead. `SaveBatches` keeps the frames of each batch and queues the prompt again, with the manager's
`requeue` one higher, until there are no more.
"""

import copy
import itertools
import os
import uuid

import av
import folder_paths
import numpy as np
import torch
from server import PromptServer


class BatchManager:
    FUNCTION = "update_batch"
    RETURN_TYPES = ("VHS_BatchManager",)
    CATEGORY = "test"

    def __init__(self):
        self.frames_per_batch = -1
        self.reset()

    def reset(self):
        self.inputs, self.outputs = {}, {}
        self.has_closed_inputs = False

    @classmethod
    def INPUT_TYPES(cls):
        return {
            "required": {"frames_per_batch": ("INT", {"default": 16, "min": 1, "max": 9999})},
            "hidden": {"prompt": "PROMPT", "unique_id": "UNIQUE_ID"},
        }

    def update_batch(self, frames_per_batch, prompt=None, unique_id=None):
        if not prompt[unique_id]["inputs"].get("requeue", 0):
            self.reset()
            self.frames_per_batch, self.unique_id = frames_per_batch, unique_id
        return (self,)


class LoadInBatches:
    FUNCTION = "load"
    RETURN_TYPES = ("IMAGE",)
    CATEGORY = "test"

    @classmethod
    def INPUT_TYPES(cls):
        return {
            "required": {"file": ("STRING", {"default": ""})},
            "optional": {"meta_batch": ("VHS_BatchManager",)},
            "hidden": {"unique_id": "UNIQUE_ID"},
        }

    def load(self, file, meta_batch=None, unique_id=None):
        path = os.path.join(folder_paths.get_input_directory(), os.path.basename(file))
        if meta_batch is None:
            return (torch.stack(list(frames(path))),)
        if unique_id not in meta_batch.inputs:
            meta_batch.inputs[unique_id] = looking_ahead(path, meta_batch)
        return (torch.stack(list(itertools.islice(meta_batch.inputs[unique_id], meta_batch.frames_per_batch))),)


def frames(path):
    with av.open(path) as container:
        for frame in container.decode(video=0):
            yield torch.from_numpy(frame.to_ndarray(format="rgb24")).float() / 255


def looking_ahead(path, meta_batch):
    last = None
    for frame in frames(path):
        if last is not None:
            yield last
        last = frame
    meta_batch.has_closed_inputs = True
    yield last


class SaveBatches:
    FUNCTION = "save"
    RETURN_TYPES = ()
    OUTPUT_NODE = True
    CATEGORY = "test"

    @classmethod
    def INPUT_TYPES(cls):
        return {
            "required": {"images": ("IMAGE",), "name": ("STRING", {"default": "frames"})},
            "optional": {"meta_batch": ("VHS_BatchManager",)},
            "hidden": {"unique_id": "UNIQUE_ID"},
        }

    def save(self, images, name, meta_batch=None, unique_id=None):
        batches = [] if meta_batch is None else meta_batch.outputs.setdefault(unique_id, [])
        batches.append(images.numpy().copy())
        if meta_batch is not None and not meta_batch.has_closed_inputs:
            requeue(meta_batch.unique_id)
            return {"ui": {"unfinished_batch": [True]}}
        file = os.path.join(folder_paths.get_output_directory(), f"{os.path.basename(name)}.npz")
        np.savez(file, frames=np.concatenate(batches), lengths=[len(batch) for batch in batches])
        return {"ui": {"unfinished_batch": [False]}}


def requeue(manager):
    queue = PromptServer.instance.prompt_queue
    with queue.mutex:
        (item,) = queue.currently_running.values()
    number, _, prompt, *rest = item
    prompt = copy.deepcopy(prompt)
    inputs = prompt[manager]["inputs"]
    inputs["requeue"] = inputs.get("requeue", 0) + 1
    queue.put((number, str(uuid.uuid4()), prompt, *rest))


NODE_CLASS_MAPPINGS = {
    "VHS_BatchManager": BatchManager,
    "LoadInBatches": LoadInBatches,
    "SaveBatches": SaveBatches,
}
