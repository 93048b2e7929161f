// The mesh as arithmetic: rank ↔ coordinates, groups. What stretto.mesh is in Python.
"use strict";

(() => {
  // `axes` are [name, extent], outermost first; `groups` are {name, axes} along which ranks differ.
  class Mesh {
    constructor(axes, groups) {
      this.groups = groups;
      this.extents = Object.fromEntries(axes);
      this.strides = {};
      axes.reduceRight((stride, [name, extent]) => {
        this.strides[name] = stride;
        return stride * extent;
      }, 1);
    }

    group(name) { return this.groups.find((group) => group.name === name); }

    coordinate(rank, axis) {
      return Math.floor(rank / (this.strides[axis] ?? Infinity)) % (this.extents[axis] ?? 1);
    }

    extent(group) { return group.axes.reduce((n, axis) => n * this.extents[axis], 1); }

    // The place of a rank along a group.
    index(rank, group) {
      return group.axes.reduce((i, axis) => i * this.extents[axis] + this.coordinate(rank, axis), 0);
    }

    // The ranks that differ from this one only along the group.
    members(rank, group) {
      const first = group.axes.reduce((r, axis) => r - this.coordinate(rank, axis) * this.strides[axis], rank);
      return group.axes.reduce((found, axis) => found.flatMap((r) =>
        Array.from({ length: this.extents[axis] }, (_, i) => r + i * this.strides[axis])), [first]);
    }
  }

  Stretto.page.Mesh = Mesh;
})();
