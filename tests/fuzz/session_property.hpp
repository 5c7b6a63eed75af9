#pragma once
// What must hold for any bytes that a client or a provider sends, through the real session layer: net's server
// connection and its upstream client over real sockets. Run by libFuzzer (fuzz_http_server.cpp, fuzz_http_client.cpp)
// and over the kept corpus by tests/fuzz/replay_test.cpp. A broken property ends the process.

#include <string>
#include <string_view>

namespace ganglion::fuzz {

// Whatever pieces the bytes come in: the handler gets the requests that the parser alone finds in them, every answer is
// well framed, and what is refused ends the connection with one 4xx.
void check_http_server(std::string_view bytes);

// The same for a provider's answer: the same outcome for every split; what surplus there is never stays on a connection
// that is kept.
void check_http_client(std::string_view bytes);

}  // namespace ganglion::fuzz
