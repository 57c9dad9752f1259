import com.rabbitmq.client.Channel;
import com.rabbitmq.client.Connection;
import com.rabbitmq.client.ConnectionFactory;
import com.rabbitmq.client.MessageProperties;
import java.nio.charset.StandardCharsets;

/** Publishes one task with RabbitMQ's Java client and its own set of properties: URL EXCHANGE KEY ID. */
public class JavaPublish {
    public static void main(String[] arguments) throws Exception {
        ConnectionFactory factory = new ConnectionFactory();
        factory.setUri(arguments[0]);
        String body = "{\"id\": \"" + arguments[3] + "\", \"plugin\": \"word-count\", \"input\": {\"text\": \"a b\"}}";
        try (Connection connection = factory.newConnection()) {
            Channel channel = connection.createChannel();
            channel.confirmSelect();
            byte[] bytes = body.getBytes(StandardCharsets.UTF_8);
            channel.basicPublish(arguments[1], arguments[2], MessageProperties.PERSISTENT_TEXT_PLAIN, bytes);
            channel.waitForConfirmsOrDie(10_000);
        }
    }
}
