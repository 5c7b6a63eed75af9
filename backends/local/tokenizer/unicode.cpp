// Builds the class table, and normal forms on top of utf8proc's decompositions.

#include "backends/local/tokenizer/unicode.hpp"

#include <utf8proc.h>

#include <algorithm>
#include <map>
#include <span>

#include "backends/local/tokenizer/utf8.hpp"

namespace ganglion::local::tok {
namespace {

#include "backends/local/tokenizer/unicode_tables.inc"

struct Runs {
  std::span<const std::uint32_t> runs;
  ClassMask mask;
};

const Runs kRuns[] = {
    {kLetterRuns, kLetter},       {kNumberRuns, kNumber},           {kSpaceRuns, kSpace},
    {kWordRuns, kWord},           {kPunctuationRuns, kPunctuation}, {kNumericRuns, kNumeric},
    {kCleanRuns, kClean},         {kAccentRuns, kAccent},           {kMarkRuns, kMark},
    {kCanonicalRuns, kCanonical}, {kCompatRuns, kCompat},           {kComposedRuns, kComposed},
};

constexpr bool is_hangul_syllable(char32_t c) {
  return c >= 0xAC00 && c <= 0xD7A3;
}
// Vowel and final jamo compose with what stands before them.
constexpr bool is_trailing_jamo(char32_t c) {
  return c >= 0x1161 && c <= 0x11FF;
}

int combining_class(char32_t c) {
  if (!is(c, kMark)) return 0;  // newer marks are unknown to the reference, and do not reorder there
  return utf8proc_get_property(static_cast<utf8proc_int32_t>(c))->combining_class;
}

// Whether some code point of `text` could change or be moved.
bool touched(std::string_view text, NormalForm form) {
  const bool compose = form == NormalForm::nfc || form == NormalForm::nfkc;
  ClassMask mask = kMark | (compose ? kComposed : kCanonical);
  if (form == NormalForm::nfkc || form == NormalForm::nfkd) mask |= kCompat;
  const CharClasses& classes = CharClasses::get();
  for (std::size_t i = 0; i < text.size();) {
    const CodePoint c = decode_at(text.data() + i);
    if (c.value >= 0x80 &&
        (classes.is(c.value, mask) || is_trailing_jamo(c.value) || (!compose && is_hangul_syllable(c.value)))) {
      return true;
    }
    i += c.size;
  }
  return false;
}

std::vector<utf8proc_int32_t> decompose(std::string_view text, bool compat) {
  const CharClasses& classes = CharClasses::get();
  const ClassMask mask = static_cast<ClassMask>(kCanonical | (compat ? kCompat : 0));
  const auto options =
      static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_DECOMPOSE | (compat ? UTF8PROC_COMPAT : 0));
  std::vector<utf8proc_int32_t> out;
  out.reserve(text.size());
  for (std::size_t i = 0; i < text.size();) {
    const CodePoint c = decode_at(text.data() + i);
    i += c.size;
    if (!is_hangul_syllable(c.value) && !classes.is(c.value, mask)) {
      out.push_back(static_cast<utf8proc_int32_t>(c.value));
      continue;
    }
    utf8proc_int32_t parts[32];  // the longest decomposition has 18
    int boundary = 0;
    const auto n =
        utf8proc_decompose_char(static_cast<utf8proc_int32_t>(c.value), parts, std::size(parts), options, &boundary);
    if (n <= 0 || n > static_cast<utf8proc_ssize_t>(std::size(parts))) {
      out.push_back(static_cast<utf8proc_int32_t>(c.value));
    } else {
      out.insert(out.end(), parts, parts + n);
    }
  }
  return out;
}

// Canonical ordering: each run of marks sorted by class, equal classes in place. Sorting rather than bubbling keeps a
// megabyte of marks cheap.
void reorder(std::vector<utf8proc_int32_t>& text) {
  struct Marked {
    int order;
    std::size_t position;
    utf8proc_int32_t value;
  };
  std::vector<Marked> run;
  for (std::size_t i = 0; i < text.size();) {
    const std::size_t begin = i;
    run.clear();
    for (; i < text.size(); ++i) {
      const int order = combining_class(static_cast<char32_t>(text[i]));
      if (order == 0) break;
      run.push_back({order, i, text[i]});
    }
    if (run.size() > 1) {
      std::ranges::sort(run, {}, [](const Marked& m) { return std::pair(m.order, m.position); });
      std::ranges::transform(run, text.begin() + static_cast<std::ptrdiff_t>(begin), &Marked::value);
    }
    if (i == begin) ++i;
  }
}

}  // namespace

CharClasses::CharClasses() {
  std::vector<ClassMask> flat(0x110000, 0);
  for (const auto& [runs, mask] : kRuns) {
    std::size_t at = 0;
    for (std::size_t i = 0; i + 1 < runs.size(); i += 2) {
      at += runs[i];
      for (const std::size_t end = at + runs[i + 1]; at < end; ++at) flat[at] |= mask;
    }
  }
  std::map<std::array<ClassMask, 256>, std::uint16_t> known;
  for (std::size_t page = 0; page < page_of_.size(); ++page) {
    std::array<ClassMask, 256> classes;
    std::copy_n(flat.begin() + static_cast<std::ptrdiff_t>(page * 256), 256, classes.begin());
    const auto [it, added] = known.try_emplace(classes, static_cast<std::uint16_t>(pages_.size()));
    if (added) pages_.push_back(classes);
    page_of_[page] = it->second;
  }
}

const CharClasses& CharClasses::get() {
  static const CharClasses classes;  // a constant, merely too large to spell out
  return classes;
}

void append_lower(std::string& out, char32_t c) {
  if (c < 0x80) {
    out += static_cast<char>(c >= 'A' && c <= 'Z' ? c + 32 : c);
    return;
  }
  if (c == 0x130) {
    out += "i\xCC\x87";
    return;
  }
  // Runs of four numbers, in order and apart: the last one that begins at or before c decides.
  std::size_t low = 0, high = std::size(kLowerRuns) / 4;
  while (low < high) {
    const std::size_t middle = (low + high) / 2;
    if (kLowerRuns[middle * 4] <= c) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  if (low > 0) {
    const std::uint32_t* run = &kLowerRuns[(low - 1) * 4];
    const std::uint32_t offset = static_cast<std::uint32_t>(c) - run[0];
    if (offset % run[2] == 0 && offset / run[2] < run[1]) c = run[3] + offset;
  }
  append_utf8(out, c);
}

void normalize(std::string& text, NormalForm form) {
  if (is_ascii(text) || !touched(text, form)) return;
  const bool compat = form == NormalForm::nfkc || form == NormalForm::nfkd;
  std::vector<utf8proc_int32_t> points = decompose(text, compat);
  reorder(points);
  if (form == NormalForm::nfc || form == NormalForm::nfkc) {
    const auto n = utf8proc_normalize_utf32(points.data(), static_cast<utf8proc_ssize_t>(points.size()),
                                            static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE));
    if (n >= 0) points.resize(static_cast<std::size_t>(n));
  }
  text.clear();
  for (utf8proc_int32_t c : points) append_utf8(text, static_cast<char32_t>(c));
}

}  // namespace ganglion::local::tok
