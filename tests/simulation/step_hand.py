#!/usr/bin/env python3
"""The orders of the kernel that runs a whole decode step (backends/local/kernels/cuda/step_hand.cuh), played at random.

  tests/simulation/step_hand.py [--seeds N]

Blocks hand over by values: a place is unset until its value is there, readers poll it, and it is made unset again two
parts after it was read. Where some blocks take no part in a product, the others wait for a count of those that do. Here
blocks run at any speed, and what a block stores is seen by others at any later time and in any order, but for one place's
own order and for fences. Nobody may take an older layer's value, nobody may wait for ever, and in the end every place must
be unset. Without the fence, without that count, or with places made unset a part too early some seed must break: else this
would show nothing."""

import argparse
import random
import sys

QKV, OUT, GATE_UP, DOWN, ATTENTION, HEAD = range(6)
PRODUCTS = (QKV, OUT, GATE_UP, DOWN)
READS = {OUT: ATTENTION, GATE_UP: OUT, DOWN: GATE_UP}  # QKV and HEAD: the layer before's DOWN
BEHIND = {QKV: (GATE_UP,), OUT: (DOWN, QKV), GATE_UP: (ATTENTION,), DOWN: (OUT,)}
TURNS_MAX = 3_000_000


class Wrong(Exception):
    pass


class Step:
    """One kernel: `without` names what is left out of it."""

    def __init__(self, seed, without=None):
        self.random = pick = random.Random(seed)
        self.without = without
        self.blocks, self.layers, self.head = pick.randint(2, 6), pick.randint(1, 3), pick.random() < 0.5
        least = pick.choice([1, self.blocks])
        self.panels = {QKV: least + pick.randint(0, 8), GATE_UP: least + pick.randint(0, 8), HEAD: pick.randint(1, 6)}
        self.panels[OUT] = self.panels[DOWN] = least + pick.randint(0, 5)
        self.hints = pick.random() < 0.5
        self.all_take_part = all(self.panels[m] >= self.blocks for m in PRODUCTS)
        units, queries = pick.randint(1, 2 * self.blocks), range(self.panels[QKV])
        self.needs = [set(pick.sample(queries, pick.randint(1, len(queries)))) for _ in range(units)]
        for panel in queries:  # every one is read by some unit
            self.needs[pick.randrange(units)].add(panel)
        self.size = {**{m: self.panels[m] for m in PRODUCTS}, ATTENTION: units}
        self.memory = {(part, i): None for part, size in self.size.items() for i in range(size)}
        self.stored = [[] for _ in range(self.blocks)]  # and not seen by others yet
        self.speed = [pick.choice([0.02, 0.3, 1, 1]) for _ in range(self.blocks)]
        self.seen_soon = pick.choice([0.002, 0.01, 0.05, 0.3])
        self.counter, self.ended = 0, 0
        self.fetched, self.multiplied = [0] * self.blocks, [0] * self.blocks

    # A block's share of a product, as Share in step_parts.cuh.
    def first(self, block, m):
        return block if m in (OUT, DOWN) else self.blocks - 1 - block

    def share(self, block, m):
        return range(self.first(block, m), self.panels[m], self.blocks)

    def takers(self, m):
        return min(self.blocks, self.panels[m])

    def fence(self, block):
        mine = list(self.stored[block])
        while any(any(one is other for other in self.stored[block]) for one in mine):
            yield

    def value(self, place, layer):
        while self.memory[place] is None:
            yield
        if self.memory[place] != layer:
            raise Wrong(f"layer {layer} took layer {self.memory[place]}'s value of {place}")

    def whole(self, part, layer):
        for i in range(self.size[part]):
            yield from self.value((part, i), layer)

    def gate(self, before, total):
        """Where all blocks take part in all products it only says when to ask, and half of the steps here do without."""
        least = total if not self.all_take_part else (before + (total - before) * 4 // 8) * self.hints
        while self.counter < least and self.without != "gate":
            yield

    def consume(self, block):
        before = total = 0  # counted before the last part and with it
        for layer in range(self.layers):
            for m in PRODUCTS:
                if m == OUT:
                    if not self.all_take_part:
                        yield from self.gate(before, total)
                    for unit in range(block, len(self.needs), self.blocks):
                        for panel in self.needs[unit]:
                            yield from self.value((QKV, panel), layer)
                        self.stored[block].append(((ATTENTION, unit), layer))
                    attending = min(self.blocks, len(self.needs))
                    if block < attending:
                        self.counter += 1
                    before, total = total, total + attending
                if self.share(block, m):
                    yield from self.gate(before, total)
                    if m != QKV:
                        yield from self.whole(READS[m], layer)
                    elif layer > 0:
                        yield from self.whole(DOWN, layer - 1)
                    self.fetched[block] += 1
                    yield
                    self.multiplied[block] += 1
                before, total = total, total + self.takers(m)
        if self.head and self.share(block, HEAD):
            yield from self.gate(before, total)
            yield from self.whole(DOWN, self.layers - 1)

    def finish(self, block):
        done = 0
        for layer in range(self.layers):
            for m in PRODUCTS:
                if not self.share(block, m):
                    continue
                done += 1
                while self.fetched[block] < done:
                    yield
                parts = BEHIND[m] if self.without != "distance" else (READS.get(m, DOWN),)
                for part in parts:
                    unset = range(self.first(block, m), self.size[part], self.takers(m))
                    self.stored[block] += [((part, i), None) for i in unset]
                if self.without != "fence":
                    yield from self.fence(block)
                while self.multiplied[block] < done:
                    yield
                for panel in self.share(block, m):
                    yield
                    if m != DOWN or layer < self.layers - 1 or self.head:  # else the last ones are for after the kernel
                        self.stored[block].append(((m, panel), layer))
                self.counter += 1  # seen at once, whenever the values are

    def run_block(self, block):
        warps = [self.consume(block), self.finish(block)]
        while warps:
            warp = self.random.choice(warps)
            if next(warp, self) is self:
                warps.remove(warp)
            yield
        yield from self.fence(block)
        self.ended += 1
        if self.ended == self.blocks:
            self.stored[block] += [((part, i), None) for part in (GATE_UP, DOWN) for i in range(self.size[part])]

    def show_one(self, block):
        """Some place's oldest value of what a block has stored."""
        stored = self.stored[block]
        place = self.random.choice(stored)[0]
        oldest = next(i for i, one in enumerate(stored) if one[0] == place)
        self.memory[place] = stored.pop(oldest)[1]

    def run(self):
        running = {block: self.run_block(block) for block in range(self.blocks)}
        for _ in range(TURNS_MAX):
            if running:
                block = self.random.choices(list(running), [self.speed[b] for b in running])[0]
                if next(running[block], self) is self:
                    del running[block]
            elif not any(self.stored):
                break
            for other in range(self.blocks):
                if self.stored[other] and self.random.random() < self.seen_soon:
                    self.show_one(other)
        else:
            raise Wrong("it does not end")
        left = [place for place, value in self.memory.items() if value is not None]
        if left:
            raise Wrong(f"not unset in the end: {left}")


def broken(seeds, without=None):
    """The first seed that breaks, and why; None: none does."""
    for seed in seeds:
        try:
            Step(seed, without).run()
        except Wrong as wrong:
            return f"seed {seed}: {wrong}"
    return None


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=300)
    seeds = range(parser.parse_args().seeds)
    found = broken(seeds)
    if found:
        print(f"step_hand: {found}")
        return 1
    for without in ("fence", "gate", "distance"):
        found = broken(range(1_000), without)
        if not found:
            print(f"step_hand: without its {without} no seed breaks: nothing is shown")
            return 1
        print(f"step_hand: without its {without}, {found}")
    print(f"step_hand: {len(seeds)} seeds, none breaks")
    return 0


if __name__ == "__main__":
    sys.exit(main())
