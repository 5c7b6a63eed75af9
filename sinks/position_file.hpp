#pragma once
// How far a sink has come, in a small file beside the ledger: the truth for sinks whose other side keeps no position, a
// lower bound for the others, so that the ledger knows what it must keep while the other side cannot be asked.

#include <cstdint>
#include <string>

#include "core/error.hpp"

namespace ganglion::sinks {

class PositionFile {
 public:
  // `directory` is made where it is not there. The file belongs to one ledger: another one's is an error.
  PositionFile(std::string directory, std::string sink, std::string ledger_id);

  core::Result<std::uint64_t> read() const;          // 0: there is none
  core::Result<void> write(std::uint64_t sequence);  // replaced in one piece, durable

 private:
  const std::string directory_;
  const std::string path_;
  const std::string ledger_id_;
};

}  // namespace ganglion::sinks
