// Prints the table of requests that must be refused, for programs in other languages: name, status, bytes in hex.

#include <cstdio>

#include "tests/unit/net/reject_vectors.hpp"

int main() {
  for (const auto& vector : ganglion::net::test::reject_vectors()) {
    for (const char c : vector.name) std::putchar(c < ' ' || c > '~' || c == '\t' ? '?' : c);
    std::printf("\t%d\t", vector.status);
    for (const char c : vector.bytes) std::printf("%02x", static_cast<unsigned char>(c));
    std::putchar('\n');
  }
}
