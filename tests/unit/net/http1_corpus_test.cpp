// The HTTP/1.1 fuzzers' properties over their kept corpus and the must-reject vectors, in every build.

#include <gtest/gtest.h>

#include "tests/fuzz/http1_property.hpp"
#include "tests/support/corpus.hpp"
#include "tests/unit/net/reject_vectors.hpp"

namespace ganglion::net {
namespace {

void replay(const std::string& name, void (*check)(std::string_view)) {
  const auto cases = ganglion::test::corpus(name);
  EXPECT_GT(cases.size(), 20U) << name;
  for (const auto& [file, bytes] : cases) {
    SCOPED_TRACE(file);
    check(bytes);
  }
}

TEST(Http1Corpus, Requests) {
  replay("http1_request", fuzz::check_http1_request);
}
TEST(Http1Corpus, Responses) {
  replay("http1_response", fuzz::check_http1_response);
}
TEST(Http1Corpus, Chunks) {
  replay("http1_chunk", fuzz::check_http1_chunk);
}

TEST(Http1Corpus, RejectVectorsAreRefusedUnderEverySplit) {
  for (const auto& vector : test::reject_vectors()) {
    SCOPED_TRACE(vector.name);
    fuzz::check_http1_request(vector.bytes);
    const fuzz::Connection read = fuzz::read_requests(vector.bytes, SIZE_MAX);
    EXPECT_TRUE(read.refused);
    EXPECT_TRUE(read.served.empty());
  }
}

}  // namespace
}  // namespace ganglion::net
