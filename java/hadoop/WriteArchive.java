import java.io.BufferedInputStream;
import java.io.DataInputStream;
import java.io.EOFException;
import java.io.IOException;
import java.io.OutputStream;
import org.apache.hadoop.conf.Configuration;
import org.apache.hadoop.fs.FileSystem;
import org.apache.hadoop.fs.Path;
import org.apache.hadoop.io.BytesWritable;
import org.apache.hadoop.io.SequenceFile;
import org.apache.hadoop.io.Text;
import org.apache.hadoop.io.Writable;
import org.apache.hadoop.io.compress.CompressionCodec;
import org.apache.hadoop.util.ReflectionUtils;

/**
 * Writes files of a historic archive with Hadoop's own classes, as standard input says. A file is
 *
 * <pre>
 *   path, container ("sequence", "text" or "raw"), value class, compression type, codec class   (as writeUTF has it)
 *   for each record: length of key (int), key, length of value (int), value;  or -2 (int): a sync marker
 *   -1 (int)
 * </pre>
 *
 * Value class and compression type are empty for text and raw, the codec for what is not compressed. "raw" writes the
 * values, and nothing else.
 */
public final class WriteArchive {
    private static final Configuration CONFIGURATION = new Configuration();
    private static final int END_OF_FILE = -1;
    private static final int SYNC_MARKER = -2;

    public static void main(String[] arguments) throws Exception {
        DataInputStream in = new DataInputStream(new BufferedInputStream(System.in, 1 << 20));
        while (true) {
            Path path;
            try {
                path = new Path(in.readUTF());
            } catch (EOFException end) {
                return;
            }
            String container = in.readUTF();
            String valueClass = in.readUTF();
            String compression = in.readUTF();
            String codecClass = in.readUTF();
            CompressionCodec codec = codecClass.isEmpty()
                    ? null
                    : (CompressionCodec) ReflectionUtils.newInstance(Class.forName(codecClass), CONFIGURATION);
            if (container.equals("sequence")) {
                writeSequenceFile(in, path, valueClass, SequenceFile.CompressionType.valueOf(compression), codec);
            } else {
                writeLines(in, path, container.equals("raw"), codec);
            }
        }
    }

    private static void writeSequenceFile(
            DataInputStream in,
            Path path,
            String valueClass,
            SequenceFile.CompressionType compression,
            CompressionCodec codec)
            throws Exception {
        Class<? extends Writable> type = Class.forName(valueClass).asSubclass(Writable.class);
        try (SequenceFile.Writer writer = SequenceFile.createWriter(
                CONFIGURATION,
                SequenceFile.Writer.file(path),
                SequenceFile.Writer.keyClass(Text.class),
                SequenceFile.Writer.valueClass(type),
                SequenceFile.Writer.compression(compression, codec))) {
            for (int length = in.readInt(); length != END_OF_FILE; length = in.readInt()) {
                if (length == SYNC_MARKER) {
                    writer.sync();
                    continue;
                }
                byte[] key = in.readNBytes(length);
                byte[] value = in.readNBytes(in.readInt());
                // Neither constructor looks at the bytes: they need not be UTF-8.
                writer.append(new Text(key), type == Text.class ? new Text(value) : new BytesWritable(value));
            }
        }
    }

    private static void writeLines(DataInputStream in, Path path, boolean isRaw, CompressionCodec codec)
            throws IOException {
        FileSystem files = path.getFileSystem(CONFIGURATION);
        try (OutputStream file = files.create(path, true);
                OutputStream out = codec == null ? file : codec.createOutputStream(file)) {
            for (int length = in.readInt(); length != END_OF_FILE; length = in.readInt()) {
                byte[] key = in.readNBytes(length);
                byte[] value = in.readNBytes(in.readInt());
                if (!isRaw) {
                    out.write(key);
                    out.write('\t');
                }
                out.write(value);
                if (!isRaw) {
                    out.write('\n');
                }
            }
        }
    }
}
