#pragma once
// All segments of a directory in order, as they are: for verification, export and reports. Beside a running gateway the
// live tail ends the walk and is no error.

#include <functional>
#include <string>

#include "metering/anchors.hpp"
#include "metering/ledger_reader.hpp"
#include "metering/segment_scan.hpp"

namespace ganglion::metering {

struct Walk {
  VerifyReport report;
  Replay replay;     // after the last good record
  ChainState state;  // the same
};

// `anchors`, where given, are held against the segments.
core::Result<Walk> walk_segments(const std::string& directory, const AnchorList* anchors, const FrameVisitor& visit);

}  // namespace ganglion::metering
