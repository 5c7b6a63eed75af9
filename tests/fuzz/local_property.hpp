#pragma once
// What must hold for any bytes given to the codecs of the local engine and to the ledger's recovery. Run by libFuzzer
// (fuzz_*.cpp) and over the kept corpora by tests/fuzz/replay_local_test.cpp. A broken property ends the process.

#include <string_view>

namespace ganglion::fuzz {

// A request's JSON schema, the first byte how it is asked for: refused for the client, or a grammar within its bounds
// whose masks say what it takes, that is never at a loss, and whose whole texts are JSON.
void check_json_schema(std::string_view bytes);
void check_tool_calls(std::string_view bytes);      // a model's text, the first byte its style: cut anywhere, the same
void check_safetensors(std::string_view bytes);     // views lie inside the file and do not overlap
void check_tokenizer_json(std::string_view bytes);  // what is streamed is what is decoded
// A segment, and its bytes as payloads of good frames: nothing is invented, cutting what is bad leaves the same.
void check_ledger(std::string_view bytes);

}  // namespace ganglion::fuzz
