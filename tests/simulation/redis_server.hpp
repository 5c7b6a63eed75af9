#pragma once
// A Redis of the simulated world: one server that speaks RESP 2, runs the product's own scripts, and fails as servers
// do. Its data survives the lives of gateways, and its own deaths only where the seed says so.

#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "tests/simulation/net.hpp"
#include "tests/simulation/redis_data.hpp"
#include "tests/simulation/redis_scripts.hpp"

namespace ganglion::sim {

class RedisConnection;

class RedisServer {
 public:
  RedisServer(Machine& machine, Net& net);

  static constexpr std::uint16_t kPort = 9003;

  void life(bool sound);                           // a life of gateways begins; not `sound`: some of it in trouble
  unsigned troubles() const { return troubles_; }  // of this life
  bool ever_troubled() const { return ever_troubled_; }
  bool lost_data() const { return lost_data_; }          // ever
  const std::string& broken() const { return broken_; }  // what the product sent that is unknown here; "": nothing
  std::vector<RedisWords>* record = nullptr;             // of commands on data, with the time in front
  bool tell = false;                                     // all of it, in the trace
  bool double_return = false;                            // a planted fault: see run.hpp

 private:
  friend class RedisConnection;
  enum class State : std::uint8_t { up, dead, hung, loading, read_only, no_memory };
  enum class Trouble : std::uint8_t {
    killed,
    emptied,
    hung,
    loading,
    read_only,
    no_memory,
    slow,
    cuts,
    flushed,
    unlearned,
    kCount
  };

  void begin(Trouble trouble);
  void end(Trouble trouble);
  void drop_all();
  void tell_of(const RedisWords& words, const RedisAnswer& out);
  void execute(RedisConnection& from, const RedisWords& words);
  RedisAnswer answer(RedisConnection& from, const RedisWords& words);
  RedisAnswer subscribe(RedisConnection& from, const RedisWords& words);
  std::int64_t publish(const std::string& channel, const std::string& message);
  const char* refusal(const std::string& name) const;  // nullptr: none

  Machine& machine_;
  RedisData data_;
  RedisScripts scripts_;
  State state_ = State::up;
  bool slow_ = false;
  bool cuts_ = false;
  std::vector<std::weak_ptr<RedisConnection>> connections_;
  unsigned troubles_ = 0;
  bool ever_troubled_ = false;
  bool lost_data_ = false;
  std::string broken_;
};

// The commands that are whole at the beginning of `bytes`, which go; false: that is no RESP.
bool take_commands(std::string& bytes, std::vector<RedisWords>& out);

}  // namespace ganglion::sim
