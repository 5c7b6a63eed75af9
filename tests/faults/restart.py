"""F10's last sentence: a gateway that is killed under load with a large ledger serves again within a second."""

import subprocess
import time

import lab
from lab import NO_CACHE, Gateway, Load, Upstream, ask, must, provider


def restart(run):
    """kill -9 under load on a ledger of 1 GiB; how long until the first 200. Full segments are not read by a start."""
    gib, kills = {"ci": (0.25, 3), "release": (1.0, 10)}[run.size]
    upstream = Upstream()
    gateway = Gateway("providers:\n" + provider(upstream) + NO_CACHE, directory=run.directory)
    # What it writes counts the segment that is prepared ahead, too.
    filled = subprocess.run([lab.build_dir() / "metering/bench_ledger", gateway.ledger, "fill", str(gib + 0.1)], check=False)
    must(filled.returncode == 0, "the ledger could not be filled")
    before = sum(f.stat().st_size for f in gateway.ledger.glob("*.segment"))
    must(before >= gib * 0.9 * (1 << 30), f"the ledger has {before} bytes only")
    gateway.start()  # sums the records up, in the background
    lab.wait_until(lambda: gateway.metric("ganglion_ledger_rollup_lag_records") == 0, "the records were not summed up", seconds=240)
    seen, took = [], []
    for _ in range(kills):
        load = Load(gateway.ports["proxy"], run.rng)
        time.sleep(0.4)
        gateway.kill()
        seen += load.stop()
        began = time.monotonic()
        gateway.start()
        answer = ask(gateway.ports["proxy"], {"nonce": f"after{len(took)}", "deltas": 1})
        took.append(time.monotonic() - began)
        must(answer.status == 200, f"the first answer is {answer.status}")
    gateway.stop()
    upstream.stop()
    gateway.command("ledger", "verify", "--dir", gateway.ledger)
    must(all(s.status in (0, 200) for s in seen), "a request was refused before its gateway was killed")
    must(max(took) <= 1.0 or run.size == "ci", f"{max(took):.2f} s to the first 200")
    must(max(took) <= 5.0, f"{max(took):.2f} s to the first 200")  # on whatever machine CI has
    return f"{before / (1 << 30):.2f} GiB of segments, {kills} kills: first 200 after {min(took) * 1e3:.0f} to {max(took) * 1e3:.0f} ms; the chain verifies"
