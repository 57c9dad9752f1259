// Publishes one task with RabbitMQ's Go client as it comes, and prints the reply: URL EXCHANGE KEY ID.
package main

import (
	"context"
	"fmt"
	"log"
	"os"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

func must[T any](value T, err error) T {
	if err != nil {
		log.Fatal(err)
	}
	return value
}

func main() {
	url, exchange, key, task := os.Args[1], os.Args[2], os.Args[3], os.Args[4]
	connection := must(amqp.Dial(url))
	defer connection.Close()
	channel := must(connection.Channel())
	answers := must(channel.QueueDeclare("", false, true, true, false, nil))
	replies := must(channel.Consume(answers.Name, "", true, true, false, false, nil))
	context, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	message := amqp.Publishing{
		ReplyTo:       answers.Name,
		CorrelationId: "call-1",
		Body:          []byte(`{"id": "` + task + `", "plugin": "word-count", "input": {"text": "a b"}}`),
	}
	if err := channel.PublishWithContext(context, exchange, key, true, false, message); err != nil {
		log.Fatal(err)
	}
	for {
		select {
		case reply := <-replies:
			if reply.CorrelationId == "call-1" {
				fmt.Println(string(reply.Body))
				return
			}
		case <-context.Done():
			log.Fatal("no reply")
		}
	}
}
