#pragma once
// What must hold for any bytes given to the codecs that the request path meets less often: configuration, labels, admin
// bodies, embeddings, decimals, anchors, journals. Run by libFuzzer (fuzz_*.cpp) and over the kept corpora by
// tests/fuzz/replay_test.cpp. A broken property ends the process.

#include <string_view>

namespace ganglion::fuzz {

void check_config(std::string_view yaml);         // never loads what it cannot write out and hash again
void check_labels(std::string_view header);       // cf-aig-metadata: parse, write, parse is the same
void check_purge(std::string_view body);          // of POST /admin/cache/purge, and as it is kept on disk and in Redis
void check_embedding(std::string_view body);      // a provider's answer, and answers in general
void check_prices(std::string_view text);         // decimals, and price lists made of them
void check_anchors(std::string_view file);        // the ledger's anchors: good lines are a prefix, cut anywhere
void check_alert_journal(std::string_view file);  // budget-alerts.jsonl: reading it twice is reading it once
void check_semantic_journal(std::string_view file);  // sealed records: nothing unsealed is handed on
void check_idempotency(std::string_view bytes);      // keys, and the database as a file of any bytes

}  // namespace ganglion::fuzz
