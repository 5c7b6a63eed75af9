// The only file compiled anew when the commit changes.

#include "app/build_info.hpp"

namespace ganglion::app {

const std::string_view kCommit = GANGLION_COMMIT;

}  // namespace ganglion::app
