// The fuzzers' properties over their kept corpora, in every build: a case once found stays found. The parsers' and the
// chat templates' are replayed by their folders' unit tests, the local engine's and the ledger's by
// replay_local_test.cpp.

#include <gtest/gtest.h>

#include "tests/fuzz/codec_property.hpp"
#include "tests/fuzz/session_property.hpp"
#include "tests/support/corpus.hpp"

namespace ganglion::fuzz {
namespace {

void replay(const std::string& name, void (*check)(std::string_view), std::size_t least) {
  const auto cases = test::corpus(name);
  EXPECT_GE(cases.size(), least) << name;
  for (const auto& [file, bytes] : cases) {
    SCOPED_TRACE(file);
    check(bytes);
    check(std::string_view{bytes}.substr(0, bytes.size() / 2));  // and cut
  }
}

TEST(FuzzReplay, AClientsBytesThroughTheServer) {
  replay("http_server", check_http_server, 10);
  replay("http1_request", check_http_server, 10);
}
TEST(FuzzReplay, AProvidersBytesThroughTheClient) {
  replay("http_client", check_http_client, 10);
}
TEST(FuzzReplay, Configuration) {
  replay("config", check_config, 8);
}
TEST(FuzzReplay, Labels) {
  replay("labels", check_labels, 6);
}
TEST(FuzzReplay, Purges) {
  replay("purge", check_purge, 4);
}
TEST(FuzzReplay, Embeddings) {
  replay("embedding", check_embedding, 5);
}
TEST(FuzzReplay, Prices) {
  replay("prices", check_prices, 4);
}
TEST(FuzzReplay, Anchors) {
  replay("anchors", check_anchors, 4);
}
TEST(FuzzReplay, AlertJournal) {
  replay("alert_journal", check_alert_journal, 4);
}
TEST(FuzzReplay, SemanticJournal) {
  replay("semantic_journal", check_semantic_journal, 2);
}
TEST(FuzzReplay, Idempotency) {
  replay("idempotency", check_idempotency, 3);
}

}  // namespace
}  // namespace ganglion::fuzz
