"""How fast a value grows, and how sure that is; and a plot of a run."""

import math
import statistics


def blocks(points, count=24):
    """Medians of equal stretches of time: (middle, median). Medians, because a resident set jumps and falls back."""
    first, last = points[0][0], points[-1][0]
    width = (last - first) / count
    found = []
    for i in range(count):
        inside = [v for t, v in points if first + i * width <= t < first + (i + 1) * width]
        if inside:
            found.append((first + (i + 0.5) * width, statistics.median(inside)))
    return found


T_95 = {2: 4.30, 3: 3.18, 4: 2.78, 6: 2.45, 8: 2.31, 10: 2.23, 14: 2.14, 18: 2.10, 22: 2.07}


def slope(points):
    """Least squares through the medians of 24 blocks: (slope a unit of time, its 95 % error). The error is widened by the
    residuals' correlation from block to block, since neighbouring blocks are not independent."""
    found = blocks(points)
    n = len(found)
    if n < 4:
        return 0.0, math.inf
    mean_t, mean_v = statistics.fmean(t for t, _ in found), statistics.fmean(v for _, v in found)
    spread = sum((t - mean_t) ** 2 for t, _ in found)
    rise = sum((t - mean_t) * (v - mean_v) for t, v in found) / spread
    residuals = [v - mean_v - rise * (t - mean_t) for t, v in found]
    variance = sum(r * r for r in residuals) / (n - 2)
    square = sum(r * r for r in residuals)
    alike = sum(a * b for a, b in zip(residuals, residuals[1:])) / square if square else 0.0
    widen = (1 + alike) / (1 - alike) if 0 < alike < 1 else 1.0
    quantile = T_95[max(k for k in T_95 if k <= max(2, n - 2))]
    return rise, quantile * math.sqrt(variance * widen / spread)


def svg(series, title, width=860, height=130):
    """One panel under the other: series is a list of (name, unit, points, marks); marks are instants."""
    left, gap, top = 70, 34, 40
    parts = []
    last = max(points[-1][0] for _, _, points, _ in series)
    for index, (name, unit, points, marks) in enumerate(series):
        base = top + index * (height + gap)
        low, high = min(v for _, v in points), max(v for _, v in points)
        low, high = (0, high * 1.1 or 1) if low < high * 0.5 or high == low else (low - (high - low) * 0.2, high + (high - low) * 0.2)

        def x(t):
            return left + (width - left - 16) * t / last

        def y(v, base=base, low=low, high=high):
            return base + height * (1 - (v - low) / (high - low))

        parts.append(f'<text x="{left}" y="{base - 6}" font-weight="bold">{name}{f" ({unit})" if unit else ""}</text>')
        parts.append(f'<rect x="{left}" y="{base}" width="{width - left - 16}" height="{height}" fill="none" stroke="#bbb"/>')
        for tick in (low, (low + high) / 2, high):
            parts.append(f'<text x="{left - 6}" y="{y(tick) + 4:.1f}" text-anchor="end">{tick:.4g}</text>')
        parts += [f'<line x1="{x(t):.1f}" x2="{x(t):.1f}" y1="{base}" y2="{base + height}" stroke="#e5a5a5" stroke-width="0.6"/>' for t in marks]
        step = max(1, len(points) // 1200)
        parts.append('<polyline fill="none" stroke="#1f5fa8" stroke-width="1.1" points="' +
                     " ".join(f"{x(t):.1f},{y(v):.1f}" for t, v in points[::step]) + '"/>')
    bottom = top + len(series) * (height + gap)
    for i in range(7):
        parts.append(f'<text x="{left + (width - left - 16) * i / 6:.0f}" y="{bottom - 14}" text-anchor="middle">{last * i / 6 / 60:.3g} min</text>')
    return (f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{bottom}" font-family="sans-serif" font-size="12">'
            f'<rect width="100%" height="100%" fill="white"/><text x="{left}" y="18" font-size="14">{title}</text>' + "".join(parts) + "</svg>\n")
