#pragma once
// Settings of the places that the ledger's records are sent to, as the operator writes them.

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <string>

#include "core/secret.hpp"
#include "net/options.hpp"

namespace ganglion::sinks {

struct SinkOptions {
  std::string name;
  std::string type = "file";  // file, cloudevents, postgres
  std::size_t batch_max = 500;
  std::chrono::milliseconds interval{1'000};  // between looks at the ledger when there was nothing new
  std::chrono::milliseconds backoff_max{60'000};

  // file
  std::string directory;
  std::uint64_t rotate_bytes = 64ULL * 1024 * 1024;
  bool rotate_daily = true;

  // cloudevents
  std::string url;
  core::Secret token;            // sent as a bearer token
  std::string format = "batch";  // batch: one JSON array a request; lines: one event a line
  std::string source;            // "": urn:uuid:<ledger id>
  std::string event_type = "ganglion.request";
  std::chrono::milliseconds timeout{30'000};
  net::TlsClientOptions tls;

  // postgres
  core::Secret dsn;  // libpq's: postgresql://user:password@host/db, or key=value pairs
  std::string schema = "ganglion";
};

}  // namespace ganglion::sinks
