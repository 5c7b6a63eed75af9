#pragma once
// Settings of what is shown: cardinality bounds and logs.

#include <cstddef>
#include <string>

namespace ganglion::metrics {

struct MetricsOptions {
  std::size_t label_values_max = 200;  // distinct values of model or tenant; the rest is counted as "other"
};

struct LogOptions {
  std::string level = "info";  // debug, info, warn, error, off
  bool access_log = true;
  std::string access_log_file;  // empty: stdout
};

}  // namespace ganglion::metrics
