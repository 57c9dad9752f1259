# Publishes one task with bunny as it comes: URL EXCHANGE KEY ID.

require "bunny"
require "json"

url, exchange, key, task = ARGV
connection = Bunny.new(url)
connection.start
channel = connection.create_channel
channel.confirm_select
body = JSON.generate({"id" => task, "plugin" => "word-count", "input" => {"text" => "a b"}})
channel.exchange(exchange, passive: true).publish(body, routing_key: key)
channel.wait_for_confirms or abort("not confirmed")
connection.close
