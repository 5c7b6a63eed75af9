// The fuzzers' properties over their kept corpora and edits of them, in every build: a case once found stays found. The
// parsers' and the chat templates' are replayed by their folders' unit tests, the local engine's and the ledger's by
// replay_local_test.cpp.

#include <gtest/gtest.h>

#include "tests/fuzz/codec_property.hpp"
#include "tests/fuzz/replay.hpp"
#include "tests/fuzz/session_property.hpp"

namespace ganglion::fuzz {
namespace {

TEST(FuzzReplay, AClientsBytesThroughTheServer) {
  replay("http_server", check_http_server, 10);
  replay("http1_request", check_http_server, 10);
}
TEST(FuzzReplay, AProvidersBytesThroughTheClient) {
  replay("http_client", check_http_client, 10);
}
TEST(FuzzReplay, Configuration) {
  replay("config", check_config, 8, 15);
}
TEST(FuzzReplay, Labels) {
  replay("labels", check_labels, 6, 400);
}
TEST(FuzzReplay, Purges) {
  replay("purge", check_purge, 4, 400);
}
TEST(FuzzReplay, Embeddings) {
  replay("embedding", check_embedding, 5, 400);
}
TEST(FuzzReplay, Prices) {
  replay("prices", check_prices, 4, 300);
}
TEST(FuzzReplay, Anchors) {
  replay("anchors", check_anchors, 4, 200);
}
TEST(FuzzReplay, AlertJournal) {
  replay("alert_journal", check_alert_journal, 4, 60);
}
TEST(FuzzReplay, SemanticJournal) {
  replay("semantic_journal", check_semantic_journal, 2, 60);
}
TEST(FuzzReplay, Idempotency) {
  replay("idempotency", check_idempotency, 3, 40);
}

}  // namespace
}  // namespace ganglion::fuzz
