#pragma once
// Who lives around the gateway: clients that send requests, leave, read slowly, ask twice; providers that answer,
// refuse, hang, cut, lie still. Each keeps a journal, from which the oracle (oracle.hpp) says what must be in the
// ledger.

#include <memory>
#include <set>
#include <string>
#include <vector>

#include "tests/simulation/net.hpp"

namespace ganglion::sim {

// One request of a client, and what it saw.
struct Asked {
  int number = 0;
  int life = 0;
  std::size_t gateway = 0;
  std::string prompt;  // unique, or shared by requests that the cache may answer together
  std::string key;     // "a", "b" or "free"
  std::string idempotency_key;
  bool stream = false;
  bool shared = false;
  bool whole_upload = true;
  int max_tokens = 0;
  Nanos sent_at = 0, ended_at = -1;
  // What came back.
  int status = 0;
  bool complete = false;  // the whole body came; of a stream: with [DONE]
  int answer = -1;        // the attempt whose text this is
  std::string body;
  std::string problem;  // an answer that no client could read
  bool good() const { return complete && status == 200; }
};

// One whole request as a provider received it.
struct Received {
  int id = 0;
  int life = 0;
  int provider = 0;
  std::string prompt;
  bool stream = false;
  int input = 0, output = 0;  // the usage that it reports, if it comes so far
  bool answered = false;      // it meant to answer with success
  bool all_sent = false;      // and sent the last byte of it
};

struct Temper {  // of the providers and of the clients, in percent
  unsigned refuse = 0, silent = 0, error = 0, cut = 0, reset = 0, hang = 0, slow = 0, no_usage = 0;
  unsigned leave = 0, slow_reader = 0, half_request = 0;
};

class World {
 public:
  World(Machine& machine, Net& net);

  Temper temper;
  std::size_t gateways = 1;
  int requests = 20;         // a life
  Nanos span = 3 * kSecond;  // over which they are sent
  unsigned shared_percent = 25, keyed_percent = 20, stream_percent = 50, limited_percent = 30;
  // Each of a few requests and a second and more of silence, in which what was lent goes back; then the rest at once.
  int rounds = 0;
  int padding = 0;  // bytes of labels, so that ledger segments fill

  void providers();                                       // answer from now on; once
  void clients(const std::vector<std::uint16_t>& ports);  // a life's requests, at one gateway or another
  // One plain request that uses one token.
  std::shared_ptr<const Asked> probe(std::uint16_t port, const std::string& key);
  // Every idempotency key so far once more at every gateway, a second apart: who meets a doubt is refused by then.
  std::vector<std::shared_ptr<const Asked>> keys_again(const std::vector<std::uint16_t>& ports);
  bool all_ended() const { return unended_ == 0; }

  const std::vector<std::shared_ptr<Asked>>& asked() const { return asked_; }
  const std::vector<std::shared_ptr<Received>>& received() const { return received_; }

  static constexpr std::uint16_t kProviderPort = 9001;
  static constexpr int kProviders = 2;

 private:
  friend class ClientEnd;
  friend class ProviderEnd;
  std::shared_ptr<Asked> plan(int number);
  void with_key(Asked& asked, const std::string& key);
  Nanos moment(int index);
  void send(std::uint16_t port, const std::shared_ptr<Asked>& asked);
  std::string text_of(const Asked& asked) const;

  Machine& machine_;
  Net& net_;
  std::vector<std::shared_ptr<Asked>> asked_;
  std::vector<std::shared_ptr<Received>> received_;
  std::set<std::string> keyed_;  // idempotency keys
  int next_ = 1;
  int unended_ = 0;
};

}  // namespace ganglion::sim
