// What the words of a step mean, and what its keys do.
"use strict";

(() => {
  const { page, timeline } = Stretto;
  const { el } = page;

  const WORDS = {
    idle: "bubble", forward: "forward", recompute: "recompute", backward: "backward", update: "update",
    activation: "activations", parameter: "parameters", gradient: "gradients", pipeline: "between stages",
    vote: "vote", data: "waits for data", host: "host",
  };
  const TITLES = {
    idle: "the device waits, while no message of it is under way: for other ranks, as at the begin and end of a pipeline",
    recompute: "forward once more, for what was not kept for backward",
    activation: "waiting for activations from other ranks of the same layers (tensor, context and expert parallelism)",
    parameter: "waiting for parameters that are gathered from other ranks",
    gradient: "waiting for gradients that are summed over replicas",
    pipeline: "waiting for activations and their gradients from the stage before or after",
    vote: "all ranks agree on the norm of the gradient, and that it is finite, before they update",
    data: "waiting for the next micro-batch from the loader", host: "waiting for the Python process that issues the work",
  };
  const GLOSSARY = [
    ["layers.3.attention", "a block: of the layer with number 3, its attention. Names of parameters begin alike."],
    ["head[norm·logits·sums·loss]", "a block, and in brackets the parts (segments) of it that are computed in one go"],
    ["m0", "micro-batch 0: the sequences of a step go through the model in micro-batches, each forward and backward"],
    ["bubble", "time in which a device does nothing, as it waits for other ranks"],
    ["exposed", "of a message: the time in which the device waits for it. The rest is hidden behind work."],
    ["vote", "the message in which all ranks agree on the norm of the gradient, and that it is finite, before they update; with it a step ends"],
    ["host", "the processor that runs Python and issues work; of a recorded step: what a device waits for it"],
    ["critical path", "what follows from what, from the begin to the end of the step: only what lies on it makes the step longer"],
    ["in closed form", "estimated by formulas, without playing the step on a clock"],
    ["rank, pp, dp, tp, cp, ep", "a process with one device, and its place: which stage of the pipeline, which replica of the data, which part of each matrix, of the positions, of the experts"],
  ];
  const KEYS = [
    ["+ −", "zoom"], ["← →", "earlier, later"], ["↑ ↓", "another rank"], ["N P", "next, previous instruction"],
    ["O", "the same one, predicted or measured"], ["Z", "zoom to it"], ["Enter", "open a rank, or close it"], ["0", "the whole step"],
  ];
  // Of the instructions that cost the most.
  const COUNTED = "What the whole step waited for, each with its own time: waits for other ranks, and for hosts, are not counted.";
  // A name that may break after its parts, and not within a word.
  const broken = (text) => text.split(/(?<=[.·[\]_])/).flatMap((part, i) => (i ? [el("wbr"), part] : [part]));

  Object.assign(timeline, { WORDS, TITLES, GLOSSARY, KEYS, COUNTED, broken });
})();
