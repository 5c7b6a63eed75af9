// Encodes a text file and reports the speed: once as a whole, and once line by line as requests would come. Times are
// of this thread's processor, so that a busy machine does not count.
//   encode_file TOKENIZER.json TEXT [IDS_OUT]     (IDS_OUT: the whole text's ids as little-endian int32)

#include <cstdio>
#include <ctime>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "backends/local/tokenizer/tokenizer.hpp"

namespace {

double processor_seconds() {
  timespec t{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_nsec) * 1e-9;
}

// The best of five, in MB/s.
template <class Work>
double speed(std::size_t bytes, Work work) {
  double best = 1e99;
  for (int i = 0; i < 5; ++i) {
    const double begin = processor_seconds();
    work();
    best = std::min(best, processor_seconds() - begin);
  }
  return static_cast<double>(bytes) / best / 1e6;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3) {
    std::fprintf(stderr, "usage: encode_file TOKENIZER.json TEXT [IDS_OUT]\n");
    return 2;
  }
  const double load_begin = processor_seconds();
  auto tokenizer = ganglion::local::Tokenizer::load(argv[1]);
  if (!tokenizer) {
    std::fprintf(stderr, "%s\n", tokenizer.error().message.c_str());
    return 1;
  }
  const double load_s = processor_seconds() - load_begin;
  std::ifstream in(argv[2], std::ios::binary);
  const std::string text{std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
  std::vector<std::string_view> lines;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t end = std::min(text.find('\n', at), text.size() - 1) + 1;
    lines.push_back(std::string_view(text).substr(at, end - at));
    at = end;
  }
  const std::vector<std::int32_t> ids = tokenizer->encode(text, false);
  const double whole = speed(text.size(), [&] { tokenizer->encode(text, false); });
  const double by_line = speed(text.size(), [&] {
    for (const std::string_view line : lines) tokenizer->encode(line, false);
  });
  const double decode = speed(text.size(), [&] { tokenizer->decode(ids, false); });
  const bool back = tokenizer->decode(ids, false) == text;
  std::printf(
      "%zu bytes, %zu ids, load %.2f s, whole text %.1f MB/s, by line %.1f MB/s, decode %.1f MB/s, round trip %s\n",
      text.size(), ids.size(), load_s, whole, by_line, decode, back ? "equal" : "differs");
  if (argc > 3) {
    std::ofstream out(argv[3], std::ios::binary);
    out.write(reinterpret_cast<const char*>(ids.data()), static_cast<std::streamsize>(ids.size() * sizeof ids[0]));
  }
  return 0;
}
