# Publishes one task with bunny as it comes, and prints the reply: URL EXCHANGE KEY ID.

require "bunny"
require "json"
require "timeout"

url, exchange, key, task = ARGV
connection = Bunny.new(url)
connection.start
channel = connection.create_channel
channel.confirm_select
answers = channel.queue("", exclusive: true)
replies = Queue.new
answers.subscribe { |_delivery, properties, body| replies << body if properties.correlation_id == "call-1" }
body = JSON.generate({"id" => task, "plugin" => "word-count", "input" => {"text" => "a b"}})
channel.exchange(exchange, passive: true)
       .publish(body, routing_key: key, reply_to: answers.name, correlation_id: "call-1")
channel.wait_for_confirms or abort("not confirmed")
puts Timeout.timeout(60) { replies.pop }
connection.close
