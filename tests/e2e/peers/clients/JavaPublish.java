import com.rabbitmq.client.AMQP;
import com.rabbitmq.client.Channel;
import com.rabbitmq.client.Connection;
import com.rabbitmq.client.ConnectionFactory;
import com.rabbitmq.client.MessageProperties;
import java.nio.charset.StandardCharsets;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.TimeUnit;

/** Publishes one task with RabbitMQ's Java client and its own set of properties, and prints the reply: URL EXCHANGE KEY ID. */
public class JavaPublish {
    public static void main(String[] arguments) throws Exception {
        ConnectionFactory factory = new ConnectionFactory();
        factory.setUri(arguments[0]);
        String body = "{\"id\": \"" + arguments[3] + "\", \"plugin\": \"word-count\", \"input\": {\"text\": \"a b\"}}";
        try (Connection connection = factory.newConnection()) {
            Channel channel = connection.createChannel();
            channel.confirmSelect();
            CompletableFuture<String> reply = new CompletableFuture<>();
            channel.basicConsume("amq.rabbitmq.reply-to", true, (tag, delivery) -> {
                if ("call-1".equals(delivery.getProperties().getCorrelationId())) {
                    reply.complete(new String(delivery.getBody(), StandardCharsets.UTF_8));
                }
            }, tag -> { });
            AMQP.BasicProperties properties = MessageProperties.PERSISTENT_TEXT_PLAIN.builder()
                .replyTo("amq.rabbitmq.reply-to").correlationId("call-1").build();
            channel.basicPublish(arguments[1], arguments[2], properties, body.getBytes(StandardCharsets.UTF_8));
            channel.waitForConfirmsOrDie(10_000);
            System.out.println(reply.get(60, TimeUnit.SECONDS));
        }
    }
}
